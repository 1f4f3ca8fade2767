"""TFG and its recurrence, against the paper's algorithm written out and closed forms."""

import json
import math
from itertools import pairwise

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st

import composer
from composer import Sampler
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDPM, Euler, Heun
from composer.testing import GaussianMixtureBackend
from composer.testing.reads import Reads
from composer_plugins import (
    CFG,
    TFG,
    Anagram,
    BlockMean,
    FeynmanKac,
    Recurrence,
    SDEdit,
    SquaredError,
    Steer,
)

SHAPE = (1, 4, 4)
EXACT = {"rtol": 0, "atol": 1e-10}


def images(seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64) * 2 - 1


def bent(x):
    return (images(3) * torch.tanh(2 * x)).sum((1, 2, 3))


def brightness(x):
    return x.sum((1, 2, 3))


def algorithm_1(backend, log_f, times, seed, noisy, **options):
    """The paper's algorithm 1, in its notation, for alphas a and predictions of epsilon.

    ``noisy`` is whether Sample is DDPM's; it is DDIM's otherwise. One generator draws in the order
    of the algorithm: x_T, then for each round the e of the smoothing, the noise of Sample, and
    that of the recurrence.
    """
    rho, mu, gamma = options["rho"], options["mu"], options["gamma"]
    generator = torch.Generator().manual_seed(seed)

    def randn():
        return torch.randn((1, *SHAPE), generator=generator, dtype=torch.float64)

    alpha_bar = [backend.schedule.at(t)[0] ** 2 for t in times]
    structure = {
        "increase": [a / b for a, b in pairwise(alpha_bar)],
        "decrease": [1 - a / b for a, b in pairwise(alpha_bar)],
        "constant": [1.0] * (len(times) - 1),
    }[options["structure"]]
    mean = sum(structure) / len(structure)
    x_t = randn()
    for step, t in enumerate(times[:-1]):
        a_t, a_s = alpha_bar[step], alpha_bar[step + 1]
        rho_t, mu_t = (strength * structure[step] / mean for strength in (rho, mu))
        for recurrence in range(options["recur"]):
            count = options["draws"] if gamma > 0 else 1
            deltas = [gamma * math.sqrt(1 - a_t) * randn() for _ in range(count) if gamma > 0]

            def log_f_tilde(x, deltas=deltas):
                if not deltas:
                    return log_f(x)
                each = torch.stack([log_f(x + delta) for delta in deltas])
                return each.exp().mean(0).log()

            with torch.enable_grad():
                leaf = x_t.detach().requires_grad_()
                eps = Sampler(backend).denoise(leaf.detach(), t, 1).noise
                clean = backend.posterior_mean(leaf, math.sqrt(a_t), math.sqrt(1 - a_t), 1)
                (gradient,) = torch.autograd.grad(log_f_tilde(clean).sum(), leaf)
            clean, delta_t = clean.detach(), rho_t * gradient
            delta_0 = torch.zeros_like(clean)
            for _ in range(options["iterations"]):
                with torch.enable_grad():
                    u = (clean + delta_0).requires_grad_()
                    (gradient,) = torch.autograd.grad(log_f_tilde(u).sum(), u)
                delta_0 = delta_0 + mu_t * gradient
            if noisy:
                beta = 1 - a_t / a_s
                x_s = (
                    math.sqrt(a_s) * beta / (1 - a_t) * clean
                    + math.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t) * x_t
                )
                if a_s < 1:
                    x_s = x_s + math.sqrt(beta * (1 - a_s) / (1 - a_t)) * randn()
            else:
                x_s = math.sqrt(a_s) * clean + math.sqrt(1 - a_s) * eps
            x_s = x_s + delta_t / math.sqrt(a_t / a_s) + math.sqrt(a_s) * delta_0
            if recurrence + 1 < options["recur"]:
                x_t = math.sqrt(a_t / a_s) * x_s + math.sqrt(1 - a_t / a_s) * randn()
        x_t = x_s
    return x_t


@settings(max_examples=20)
@given(
    rho=st.floats(-0.5, 0.5),
    mu=st.floats(-0.5, 0.5),
    gamma=st.sampled_from([0.0, 0.3, 1.0]),
    iterations=st.integers(1, 3),
    draws=st.integers(1, 3),
    structure=st.sampled_from(["increase", "decrease", "constant"]),
    recur=st.integers(1, 2),
    noisy=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_it_is_algorithm_1_of_the_paper(noisy, seed, recur, **options):
    backend = mixture(DiscreteSchedule.linear(), "epsilon", SHAPE)
    solver = DDPM() if noisy else Euler()
    plugins = [Recurrence(recur), TFG(bent, **options)]
    sampler = Sampler(backend, plugins, solver, 4)
    options |= {"recur": recur}
    theirs = algorithm_1(backend, lambda x: -bent(x), sampler.times, seed, noisy, **options)
    torch.testing.assert_close(sampler.sample(1, [seed]).x, theirs, **EXACT)


def one_gaussian(std=0.5, **options):
    return GaussianMixtureBackend(images(1), [std], **options)


def moved(backend, plugin, seeds=(0,)):
    """x, the times of a step from it, and how much the plugin adds to that step, for each seed."""
    x = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    runs = []
    for plugins in ([plugin], []):
        sampler = Sampler(backend, plugins, Euler(), 6)
        states = sampler.stream(0, seeds, x=x, t=sampler.times[2])
        runs.append(next(iter(states)).x)
    return x, sampler.times[2:4], runs[0] - runs[1]


@pytest.mark.parametrize("clock", [FlowSchedule(), DiscreteSchedule.linear()])
def test_of_a_gaussian_and_a_squared_error_both_parts_are_known(clock):
    """N(m, S^2 I), y = A x_0 + s e, so that x0(x) is linear: grad_x is alpha S^2 / v A' (...), and
    the moves of the mean guidance contract by I - mu A'A / s^2 each."""
    backend, operator, s, width = one_gaussian(schedule=clock), BlockMean(2), 0.7, 0.5
    y = operator.apply(images(2))
    loss = SquaredError(y[0], operator, s)
    matrix = operator.apply(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).flatten(1).T
    for rho, mu in ((0.3, 0.0), (0.0, 0.2)):
        plugin = TFG(loss, rho, mu, iterations=3, structure="constant")
        x, (t, u), change = moved(backend, plugin)
        (alpha, sigma), (alpha_u, _) = clock.at(t), clock.at(u)
        wide = (alpha * width) ** 2 + sigma**2
        x0 = images(1) + alpha * width**2 / wide * (x - alpha * images(1))
        off = x0.flatten() @ matrix.T - y.flatten()
        gradient = matrix.T @ off / s**2
        if rho:
            expected = -rho * alpha_u * width**2 / wide * gradient
        else:
            contracted = torch.eye(16, dtype=torch.float64) - mu / s**2 * matrix.T @ matrix
            left = torch.linalg.matrix_power(contracted, 3)
            inverse = torch.linalg.pinv(matrix.T @ matrix / s**2)
            expected = alpha_u * (left - torch.eye(16, dtype=torch.float64)) @ inverse @ gradient
        torch.testing.assert_close(change.flatten(), expected, **EXACT)


def test_smoothing_is_the_likelihood_of_an_image_of_which_that_much_is_open():
    """E exp(-|A x - y|^2 / 2s^2) over N(x0, w^2 I), A the means of 2 by 2 pixels, is a Gaussian
    about y of variance s^2 + w^2 / 4. With S = 1 on a path of variances and gamma = 1, w is the
    width of x_0 given x: the variance guidance is then that of the exact posterior.

    The mean of 30 seeds of 1000 draws: four numbers are within six of their standard errors
    (t of 29 degrees, failure by chance 7e-6), where no smoothing is off by more than that.
    """
    backend, operator = one_gaussian(1.0, schedule=DiscreteSchedule.linear()), BlockMean(2)
    y, s = operator.apply(images(2)), 0.5
    loss = SquaredError(y[0], operator, s)
    plugin = TFG(loss, 0.4, 0.0, 1.0, draws=1000, structure="constant")
    x, (t, u), change = moved(backend, plugin, range(30))
    (alpha, sigma), (alpha_u, _) = backend.schedule.at(t), backend.schedule.at(u)
    off = y - operator.apply(images(1) + alpha * (x - alpha * images(1)))
    score = alpha * off / 4 / (s**2 + sigma**2 / 4)  # of p(y | x), each pixel of a block
    expected = 0.4 * alpha_u / alpha * score
    seen = operator.apply(change)
    error = seen.std(0) / math.sqrt(30)
    assert ((seen.mean(0) - expected).abs() < 6 * error).all()
    plain = operator.apply(moved(backend, TFG(loss, 0.4, 0.0, structure="constant"))[2])
    assert ((plain - expected).abs() > 6 * error).all()


def test_of_a_gaussian_its_mean_guidance_can_be_the_exact_posterior():
    """Where mu makes the move that Steer makes: with one iteration, mu_t = (1 - sigma_s alpha_t /
    (alpha_s sigma_t)) r^2. One step to the clean image has sigma_s = 0 and mu = r^2 / (1 + r^2)."""
    width, y = 0.5, images(2)
    backend = one_gaussian(width)
    x = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    loss = SquaredError(y[0], std=1.0)
    alpha, sigma = 0.5, 0.5
    wide = (alpha * width) ** 2 + sigma**2
    spread = (sigma * width) ** 2 / wide
    ours, exact = (
        Sampler(backend, [plugin], Euler(), 2).sample(0, [0], x=x, t=0.5).x
        for plugin in (
            TFG(loss, 0.0, spread / (1 + spread), iterations=1),
            Steer(loss, iterations=2),
        )
    )
    torch.testing.assert_close(ours, exact, **EXACT)
    x0 = images(1) + alpha * width**2 / wide * (x - alpha * images(1))
    torch.testing.assert_close(ours, (x0 + spread * y) / (1 + spread), **EXACT)


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=repr)
def test_rows_and_gradients_are_those_of_one_estimate_a_step(solver):
    calls = []

    def counted(x):
        calls.append(len(x))
        return bent(x)

    stats = [
        Sampler(mixture(shape=SHAPE), [*plugins, CFG(2.0)], solver, 4).sample(1, [0, 1]).stats
        for plugins in ([], [TFG(counted, 0.1, 0.1, 0.5, iterations=3, draws=5)])
    ]
    assert stats[0].rows == stats[1].rows
    assert calls[-1] == 10  # draws of each image
    # In the first step, from pure noise, nothing goes through the network.
    assert calls.count(10) == 3 + 3 * (3 + 1)


def test_it_steers_and_zero_and_other_levels_leave_the_rest_as_it_is():
    backend = mixture(shape=SHAPE)
    plain = Sampler(backend, [CFG(2.0)], None, 5).sample(1).x
    for none in (TFG(bent, 0.0, 0.0), TFG(bent, interval=(0.001, 0.002))):
        assert torch.equal(Sampler(backend, [none, CFG(2.0)], None, 5).sample(1).x, plain)
    for plugin in (TFG(bent, 0.05, 0.0), TFG(bent, 0.0, 0.05), TFG(bent, 0.02, 0.02, 0.3)):
        steered = Sampler(backend, [plugin, CFG(2.0)], None, 5).sample(1).x
        assert float(bent(steered) - bent(plain)) < -0.01


def test_images_depend_on_their_own_seed_alone():
    stack = [FeynmanKac(brightness, 5.0, 3), TFG(bent, 0.2, 0.2, 0.5), Recurrence(2)]
    sampler = Sampler(mixture(shape=SHAPE), stack, DDPM(), 4)
    together = sampler.sample(1, [4, 6]).x
    alone = torch.cat([sampler.sample(1, [seed]).x for seed in (4, 6)])
    torch.testing.assert_close(together, alone)


def test_a_view_is_the_loss_of_the_view():
    one, other = (
        Sampler(mixture(shape=SHAPE), [plugin], None, 4).sample(1).x
        for plugin in (
            TFG(bent, 0.1, 0.1, view="rotate_180"),
            TFG(lambda x: bent(x.flip(-1, -2)), 0.1, 0.1),
        )
    )
    torch.testing.assert_close(one, other)


def test_it_reads_nothing_back():
    sampler = Sampler(mixture(shape=SHAPE), [TFG(bent, 0.1, 0.1, 0.2), Recurrence(2)], None, 4)
    with Reads() as reads:
        for _ in sampler.stream(1, [0]):
            pass
    assert reads.total <= 1  # at the end of the run


# Recurrence


def test_the_plan_repeats_each_step():
    states = Sampler(mixture(), [Recurrence(3, (0.4, 0.8))], Euler(), 4).stream(1)
    assert next(states).times == [0, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5, 0.75, 0.5, 0.75, 0.5, 0.75, 1]
    assert Sampler(mixture(), [Recurrence(3)], Euler(), 4).sample(1).stats.rows == 12
    plain, same = (
        Sampler(mixture(), plugins, Euler(), 4).sample(1).x for plugins in ([], [Recurrence(1)])
    )
    assert torch.equal(plain, same)


def test_it_repeats_the_steps_that_are_left_and_its_own_jumps_alone():
    edited = [SDEdit(torch.zeros(1, 8, 8), 0.5), Recurrence(2)]
    (times,) = {tuple(state.times) for state in Sampler(mixture(), edited, Euler(), 4).stream(1)}
    assert times == (0.5, 0.75, 0.5, 0.75, 1.0, 0.75, 1.0)


def test_recurrence_of_a_gaussian_keeps_its_law():
    """Steps of DDPM, exact for data of one point, and jumps are both the path's own transitions:
    x_t stays alpha mu + sigma e, here over 2000 images of 16 pixels at t = .5 (a relative standard
    error of the variance of .8 %; five of them are 4 %, failure by chance 6e-7)."""
    point = one_gaussian(1e-3)
    states = Sampler(point, [Recurrence(3)], DDPM(), 4).stream(0, range(2000))
    visited = [(state.t, state.x) for state in states]
    at_half = [x for t, x in visited if t == 0.5]
    assert len(at_half) == 3
    for x in at_half:
        assert float((x - 0.5 * images(1)).square().mean()) == pytest.approx(0.25, rel=0.04)
    assert not torch.equal(at_half[0], at_half[1])


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda: TFG(bent, math.inf), ValueError, "TFG: rho must be finite"),
        (lambda: TFG(bent, gamma=-1.0), ValueError, "TFG: gamma must be at least 0"),
        (lambda: TFG(bent, iterations=0), ValueError, "TFG: iterations must be an integer of"),
        (lambda: TFG(bent, draws=0), ValueError, "TFG: draws must be an integer of at least 1"),
        (lambda: TFG(bent, structure="rising"), ValueError, "TFG: structure must be one of"),
        (lambda: TFG(bent, interval=(0.5, 0.1)), ValueError, "TFG: interval"),
        (lambda: Recurrence(0), ValueError, "Recurrence: times must be an integer of at least 1"),
        (lambda: Recurrence(2, (1, 0)), ValueError, "Recurrence: interval"),
        (lambda: Sampler(mixture(), [CFG(2.0), TFG(brightness)]), ValueError, "outermost plugin"),
        (lambda: Sampler(mixture(), [TFG(lambda x: x)]), ValueError, "one number per image"),
        (lambda: Sampler(mixture(), [Anagram({"flip": TFG(bent)})]), ValueError, "TFG answers"),
        (
            lambda: Sampler(mixture(), [Recurrence(1000)], None, 10_000).sample(1),
            ValueError,
            "Recurrence: times must make a plan of at most",
        ),
    ],
)
def test_what_cannot_work_raises(made, error, words):
    with pytest.raises(error, match=words):
        made()


def test_only_what_goes_through_the_network_needs_its_gradient():
    class Opaque:
        def __init__(self, backend):
            self._backend = backend

        def __getattr__(self, name):
            if name == "differentiable":
                raise AttributeError
            return getattr(self._backend, name)

    backend = Opaque(mixture(shape=SHAPE))
    with pytest.raises(ValueError, match="TFG: backend must be differentiable"):
        Sampler(backend, [TFG(bent)])
    Sampler(backend, [TFG(bent, rho=0.0)], None, 3).sample(1)


def test_it_is_written_into_recipes():
    backend = composer.load_backend("mnist")
    loss = SquaredError(torch.zeros(1, 7, 7), BlockMean(4), 0.3)
    plugins = [Recurrence(2, (0.2, 0.9)), TFG(loss, 0.01, 0.02, 0.1), CFG(2.0)]
    result = Sampler(backend, plugins, None, 2).sample(7)
    recipe = json.loads(json.dumps(result.recipe))
    assert torch.equal(Sampler.from_recipe(recipe).sample(7).x, result.x)
