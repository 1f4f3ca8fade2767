"""Adams-Bashforth: exact weights, its order, and equality with known rules."""

import numpy as np
import pytest
import torch
from conftest import mixture
from convergence import Eased, slope
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler, hookimpl
from composer.predictions import PREDICTIONS
from composer.solvers import DPMSolverPP, Euler, Heun
from composer_plugins import CFG, AdamsBashforth, Anagram, Langevin, Particles, SDEdit
from composer_plugins.solvers.adams_bashforth import _weights


@given(st.lists(st.integers(1, 40), min_size=0, max_size=4, unique=True), st.integers(0, 999))
def test_the_weights_integrate_polynomials_exactly(back, seed):
    """Of a degree below their number, at any places; the integral is by Gauss's rule."""
    places = [0.0, *(-n / 4 for n in back)]
    polynomial = np.polynomial.Polynomial(np.random.default_rng(seed).normal(size=len(places)))
    nodes, weights = np.polynomial.legendre.leggauss(5)
    exact = weights @ polynomial((nodes + 1) / 2) / 2
    assert np.dot(_weights(places), polynomial(np.array(places))) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(
    ("order", "textbook"),
    [(1, [1]), (2, [3 / 2, -1 / 2]), (3, [23 / 12, -16 / 12, 5 / 12])],
)
def test_even_steps_have_the_textbook_weights(order, textbook):
    assert _weights([-float(k) for k in range(order)]) == pytest.approx(textbook)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_errors_fall_with_the_order(order):
    assert slope(Eased(AdamsBashforth(order)), [32, 64, 128]) == pytest.approx(order, abs=0.2)


def test_the_whole_path_keeps_the_second_order():
    """Also at pure noise and at the image, where rules in log(alpha / sigma) fail. The first step,
    which is Euler's, bounds the order."""
    assert slope(AdamsBashforth(3), [32, 64, 128]) > 1.8
    assert slope(DPMSolverPP(), [32, 64, 128]) < 1.75


def test_order_one_is_euler(schedule):
    x, y = (
        Sampler(mixture(schedule), [CFG(2.0)], solver, 7).sample(1, seeds=[0, 1]).x
        for solver in (AdamsBashforth(1), Euler())
    )
    torch.testing.assert_close(x, y)


def test_a_flow_is_integrated_in_the_models_own_output():
    """x + h (23 v - 16 v' + 5 v'') / 12, after a first and a second step of lower order."""
    backend, seen = mixture(), []

    class Look:
        @hookimpl
        def post_step(self, state):
            seen.append((state.x, state.estimate.prediction))

    result = Sampler(backend, [Look()], AdamsBashforth(3), 4).sample(1)
    (_, v0), (_, v1), (x, v2), (end, v3) = seen
    torch.testing.assert_close(end, x + 0.25 * (23 * v3 - 16 * v2 + 5 * v1) / 12)
    assert torch.equal(result.x, end)
    torch.testing.assert_close(x, seen[1][0] + 0.25 * (23 * v2 - 16 * v1 + 5 * v0) / 12)
    assert result.stats.calls == 4


def test_the_sample_does_not_depend_on_the_prediction_type(schedule):
    xs = []
    for kind in PREDICTIONS:
        start = SDEdit(torch.zeros(1, 8, 8, dtype=torch.float64), i_start=1)
        sampler = Sampler(mixture(schedule, kind), [start, CFG(2.5)], AdamsBashforth(4), 12)
        xs.append(sampler.sample(1, seeds=[3, 4]).x)
    for x in xs[1:]:
        torch.testing.assert_close(x, xs[0], rtol=1e-6, atol=1e-6)


def test_it_is_nearer_than_the_solvers_of_second_order():
    """The table of docs/solvers.md in small: on a flow, with equal evaluations."""
    backend = mixture()
    exact = Sampler(backend, solver=Heun(), num_inference_steps=1000).sample(seeds=range(8)).x
    ours, dpm, heun = (
        (Sampler(backend, solver=s, num_inference_steps=n).sample(seeds=range(8)).x - exact).norm()
        for s, n in ((AdamsBashforth(3), 20), (DPMSolverPP(), 20), (Heun(), 10))
    )
    assert 2 * ours < min(dpm, heun)


class Plan:
    def __init__(self, solver, times):
        self.step, self._times = solver.step, times

    def times(self, schedule, num_steps):
        return self._times


def test_history_begins_anew_after_a_jump_and_a_walk():
    """The step after either is Euler's."""
    backend = mixture()
    for times, plugins in (([0.3, 0.5, 0.6, 0.2, 0.3], []), ([0.4, 0.6, 0.7], [Langevin(2)])):
        first = [
            [s.x for s in Sampler(backend, plugins, Plan(m, times)).stream(1, seeds=[0])]
            for m in (AdamsBashforth(3), Euler())
        ]
        torch.testing.assert_close(first[0][0], first[1][0])
    steps = {}
    for solver in (AdamsBashforth(3), Euler()):
        states = Sampler(backend, [], Plan(solver, [0.5, 0.6, 0.2, 0.3])).stream(1, seeds=[0])
        steps[type(solver)] = [s.x for s in states]
    for ours, euler in zip(*steps.values(), strict=True):
        torch.testing.assert_close(ours, euler)
    walked = [
        Sampler(backend, [Langevin(1)], Plan(m, [0.5, 0.6, 0.7, 1.0])).sample(1).x
        for m in (AdamsBashforth(3), Euler())
    ]
    torch.testing.assert_close(*walked)  # each step of the solver follows a walk


def test_images_are_independent_and_survive_selection():
    backend, stack = mixture(), [Anagram({"identity": 0, "rotate_180": 1})]
    both = Sampler(backend, stack, AdamsBashforth(3), 6).sample(seeds=[0, 1]).x
    alone = Sampler(backend, stack, AdamsBashforth(3), 6).sample(seeds=[1]).x
    torch.testing.assert_close(both[1:], alone)
    chosen = Sampler(
        backend,
        [Particles(lambda x: -x.flatten(1).norm(dim=1), ((1, 3), (0, 1)))],
        AdamsBashforth(3),
        6,
    ).sample(seeds=[0, 1])
    assert chosen.x.isfinite().all()


@pytest.mark.parametrize("order", [0, 9, 2.5])
def test_impossible_orders_raise(order):
    with pytest.raises((ValueError, TypeError), match="AdamsBashforth: order"):
        AdamsBashforth(order)
