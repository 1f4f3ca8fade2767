"""UniPC equals the scheduler of diffusers, and lives with plugins that change x."""

import math

import pytest
import torch
from conftest import mixture
from convergence import Eased, slope
from diffusers import UniPCMultistepScheduler

from composer import Sampler, hookimpl
from composer.predictions import EPSILON
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DiffusersSolver, DPMSolverPP
from composer_plugins import CFG, Inpaint, Timesteps, UniPC
from composer_plugins.solvers.unipc import _rhos


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_equals_the_scheduler_of_diffusers(order):
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    theirs = DiffusersSolver(
        UniPCMultistepScheduler(
            beta_start=1e-4, beta_end=0.02, solver_order=order, final_sigmas_type="zero"
        )
    )
    times = theirs.times(backend.schedule, 9)
    ours = Timesteps(times[:-1], UniPC(order))
    x, y = (
        Sampler(backend, [CFG(2.0)], solver, 9).sample(2, seeds=[0, 1]).x
        for solver in (ours, theirs)
    )
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)  # their tables are in float32


def test_the_corrector_needs_no_evaluation_and_changes_the_sample():
    result = Sampler(mixture(), [], UniPC(2), 8).sample(1)
    assert result.stats.calls == 8
    predictor = Sampler(mixture(), [], DPMSolverPP(), 8).sample(1)  # UniP-2 with B_2
    assert (result.x - predictor.x).abs().max() > 1e-4


def test_the_predictor_of_order_two_is_dpm_solver():
    """Where every x was replaced, the corrector is left out."""

    class Replace:
        @hookimpl
        def post_step(self, state):
            state.x = state.x + 0

    class Late:
        @hookimpl
        def start(self, state):
            state.times = [0.05, *state.times[1:]]

    x, y = (
        Sampler(mixture(), [Replace(), Late()], solver, 8).sample(1).x
        for solver in (UniPC(2), DPMSolverPP())
    )
    torch.testing.assert_close(x, y)


@pytest.mark.parametrize("order", [1, 2])
def test_the_corrector_adds_one_order(order):
    assert slope(Eased(UniPC(order)), [32, 64, 128]) == pytest.approx(order + 1, abs=0.3)


def test_the_weights_integrate_polynomials_in_lambda():
    """sum_k rho_k r_k^(n-1) is the integral of e^-(1-s)h s^n relative to that of 1, n = 1, 2, 3."""
    h, places = 0.7, [-0.5, -1.3, 1.0]
    s = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for n in (1, 2, 3):
        kernel = torch.exp(-(1 - s) * h)
        moment = float((kernel * s**n).mean() / kernel.mean())
        found = sum(rho * r ** (n - 1) for rho, r in zip(_rhos(places, h), places, strict=True))
        assert math.isclose(found, moment, rel_tol=1e-6)


def test_it_begins_in_pure_noise_and_ends_in_the_image():
    for schedule in (FlowSchedule(), FlowSchedule(noise_scale=2.0)):
        for order in (1, 2, 3, 4):
            for steps in (1, 2, 3, 7):
                x = Sampler(mixture(schedule), [], UniPC(order), steps).sample(1).x
                assert x.isfinite().all()


def test_what_inpainting_put_there_stays():
    image, mask = torch.zeros(1, 8, 8, dtype=torch.float64), torch.eye(8)
    x = Sampler(mixture(), [Inpaint(image, mask, "clean")], UniPC(3), 6).sample(1).x
    assert torch.equal(x[0, 0][mask == 0], image[0][mask == 0])
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    assert backend.prediction == EPSILON
    assert Sampler(backend, [Inpaint(image, mask)], UniPC(3), 6).sample(1).x.isfinite().all()


@pytest.mark.parametrize("order", [0, 5])
def test_impossible_orders_raise(order):
    with pytest.raises(ValueError, match="UniPC: order"):
        UniPC(order)
