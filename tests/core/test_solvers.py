"""Solvers against closed forms, against each other and against diffusers."""

import math

import pytest
import torch
from conftest import mixture
from convergence import Between, slope
from scipy import stats

from composer import Sampler
from composer.predictions import EPSILON, FLOW, PREDICTIONS, V
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, SDEdit

OURS = [Euler(), DDIM(), DDIM(eta=1.0), DDPM(), Heun(), DPMSolverPP()]


def gaussian(schedule, prediction=FLOW, mean=0.5, std=0.4):
    means = torch.full((1, 1, 1, 1), mean, dtype=torch.float64)
    return GaussianMixtureBackend(means, [std], schedule=schedule, prediction=prediction)


@pytest.mark.parametrize("solver", OURS, ids=repr)
@pytest.mark.parametrize("prediction", sorted(PREDICTIONS))
def test_every_solver_makes_samples_of_the_mixture(solver, prediction, schedule):
    """Each sample is near one of four images far apart, whatever the model predicts."""
    backend = mixture(schedule, prediction)
    x = Sampler(backend, solver=solver, num_inference_steps=40).sample(seeds=range(16)).x
    spread = (x[:, None] - backend.means).flatten(2).pow(2).mean(2).sqrt()
    nearest = spread.argmin(1)
    limits = torch.tensor(backend.stds)[nearest]
    assert (spread.min(1).values < 1.8 * limits).all()
    assert len(set(nearest.tolist())) > 1


@pytest.mark.parametrize("solver", OURS, ids=repr)
def test_the_sample_does_not_depend_on_the_prediction_type(solver, schedule):
    # From step 1 on: at pure noise, alpha = 0, epsilon says nothing of the image.
    start = SDEdit(torch.zeros(1, 8, 8, dtype=torch.float64), i_start=1)
    xs = []
    for kind in PREDICTIONS:
        sampler = Sampler(mixture(schedule, kind), [start, CFG(2.5)], solver, 12)
        start = SDEdit(start.image, i_start=1)
        xs.append(sampler.sample(1, seeds=[3, 4]).x)
    for x in xs[1:]:
        torch.testing.assert_close(x, xs[0], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (Euler(), 1),
        (Heun(), 2),
        (Between(Euler()), 1),
        (Between(DDIM()), 1),
        (Between(Heun()), 2),
        # At the ends of the path log(alpha / sigma) diverges, and 2M falls to order 1.7.
        (Between(DPMSolverPP()), 2),
    ],
    ids=repr,
)
def test_errors_fall_with_the_order_of_the_solver(solver, order):
    assert slope(solver, [32, 64, 128, 256]) == pytest.approx(order, abs=0.1)


def samples(backend, solver, steps, count=4000, seed=0):
    seeds = range(seed, seed + count)
    sampler = Sampler(backend, solver=solver, num_inference_steps=steps)
    return sampler.sample(seeds=seeds).x.flatten().numpy()


def p_value(x, mean=0.5, std=0.4):
    """Of the hypothesis x ~ N(mean, std^2): shape, location and spread, Bonferroni-corrected."""
    shape = stats.kstest(x, stats.norm(mean, std).cdf).pvalue
    location = 2 * stats.norm.sf(abs(x.mean() - mean) / std * len(x) ** 0.5)
    ratio = stats.chi2(len(x) - 1)
    statistic = (len(x) - 1) * x.var(ddof=1) / std**2
    spread = 2 * min(ratio.sf(statistic), ratio.cdf(statistic))
    return 3 * min(shape, location, spread)


RARE = 1e-6


@pytest.mark.parametrize("solver", [Heun(), DPMSolverPP(), Euler()], ids=repr)
def test_ode_solvers_sample_the_known_distribution(solver):
    assert p_value(samples(gaussian(FlowSchedule()), solver, 100)) > RARE


@pytest.mark.parametrize("solver", [DDPM(), DDIM(eta=1.0)], ids=repr)
def test_stochastic_solvers_sample_the_known_distribution(solver):
    backend = gaussian(DiscreteSchedule.linear(), EPSILON)
    assert p_value(samples(backend, solver, 1000)) > RARE


def test_a_mixture_is_sampled_in_its_proportions():
    means = torch.tensor([-0.7, 0.7], dtype=torch.float64).reshape(2, 1, 1, 1)
    backend = GaussianMixtureBackend(means, [0.1, 0.1], weights=[0.2, 0.8])
    high = int((samples(backend, Heun(), 100) > 0).sum())
    assert stats.binomtest(high, 4000, 0.8).pvalue > RARE


def test_the_distribution_tests_have_power():
    """They do see an error of ten per cent in spread, and of a tenth of it in location."""
    right = samples(gaussian(FlowSchedule()), Heun(), 100)
    assert p_value(right, std=0.44) < RARE
    assert p_value(right, mean=0.46) < RARE


def test_history_is_forgotten_at_a_jump():
    """DPM-Solver++(2M) after a jump takes a first-order step, which DDIM's is."""
    backend = mixture()
    state_times = [0.5, 0.6, 0.2, 0.3]

    class Plan:
        def __init__(self, solver):
            self.step = solver.step

        def times(self, schedule, num_steps):
            return state_times

    both = [
        [s.x.clone() for s in Sampler(backend, solver=Plan(m)).stream(1, seeds=[0])]
        for m in (DPMSolverPP(), DDIM())
    ]
    for ours, first_order in zip(*both, strict=True):
        torch.testing.assert_close(ours, first_order)


def test_v_at_the_ends_is_regular():
    """On v and flow nothing is divided by alpha, so the first step needs no clipping."""
    for prediction in (V, FLOW):
        backend = gaussian(FlowSchedule(), prediction)
        x = Sampler(backend, solver=Heun(), num_inference_steps=4).sample(seeds=range(50)).x
        assert x.abs().max() < 0.5 + 6 * 0.4


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_0_1_is_refused(eta):
    with pytest.raises(ValueError, match="eta"):
        DDIM(eta)


def test_what_is_no_solver_is_refused():
    for bad in ("euler", DDIM, object()):
        with pytest.raises(TypeError, match="solver must be a solver object"):
            Sampler(mixture(), solver=bad)
    with pytest.raises(TypeError, match="scheduler must be a diffusers scheduler"):
        DiffusersSolver("euler")


def test_ddpm_knows_two_fixed_variances():
    with pytest.raises(ValueError, match="DDPM: variance must be one of .* got 'learned'"):
        DDPM("learned")
