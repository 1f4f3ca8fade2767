"""CFG++, against its algorithm and against the guidance that it amounts to."""

import json
import math
from itertools import pairwise

import pytest
import torch
from conftest import mixture
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Sampler, installed
from composer.predictions import PREDICTIONS
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer.testing import check_stack
from composer_plugins import CFG, Anagram, CFGPlusPlus, DynamicThreshold, Hybrid, Langevin

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
SCHEDULES = [FlowSchedule(), DiscreteSchedule.linear()]


def algorithm(backend, scale, steps, x, condition):
    """Algorithm 1 of the paper, written out: guided clean image, unconditional noise."""
    times = backend.schedule.times(steps)
    plain = Sampler(backend)
    for t, s in pairwise(times):
        cond, uncond = (plain.denoise(x, t, c) for c in (condition, UNCONDITIONAL))
        x0 = uncond.x0 + scale * (cond.x0 - uncond.x0)
        alpha, sigma = backend.schedule.at(s)
        x = alpha * x0 + sigma * uncond.noise
    return x


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_it_is_the_published_algorithm(schedule, prediction):
    if isinstance(schedule, FlowSchedule) and prediction == "epsilon":
        pytest.skip("a prediction of noise says nothing of the image at pure noise")
    backend = mixture(schedule, prediction)
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for scale in (0.0, 0.6, 1.0):
        for solver in (DDIM(), Euler()):
            sampler = Sampler(backend, [CFGPlusPlus(scale)], solver, num_inference_steps=6)
            made = sampler.sample(1, seeds=[4]).x
            torch.testing.assert_close(made, algorithm(backend, scale, 6, noise, 1))


@settings(max_examples=15)
@given(st.floats(0, 1), st.sampled_from(SCHEDULES), st.integers(0, 4))
def test_a_ddim_step_is_that_of_guidance_of_another_scale(scale, schedule, step):
    backend = mixture(schedule)
    sampler = Sampler(backend, [CFGPlusPlus(scale)], num_inference_steps=6)
    t, s = sampler.times[step : step + 2]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.at(t), schedule.at(s)
    larger = scale * alpha_s * sigma_t / (alpha_s * sigma_t - alpha_t * sigma_s)
    made = sampler.denoise(X, t, 1)
    plain = Sampler(backend, [CFG(larger)]).denoise(X, t, 1)
    stepped = [alpha_s * e.x0 + sigma_s * e.noise for e in (made, plain)]
    torch.testing.assert_close(*stepped)


def test_the_estimate_holds_both_and_a_point_where_they_are_true():
    for schedule in SCHEDULES:
        backend, t = mixture(schedule, "v"), schedule.time_at(0.8)
        cond, uncond = (Sampler(backend).denoise(X, t, c) for c in (1, UNCONDITIONAL))
        made = Sampler(backend, [CFGPlusPlus(0.7)]).denoise(X, t, 1)
        torch.testing.assert_close(made.x0, 0.7 * cond.x0 + 0.3 * uncond.x0)
        torch.testing.assert_close(made.noise, uncond.noise)
        alpha, sigma = schedule.at(t)
        torch.testing.assert_close(made.x, alpha * made.x0 + sigma * made.noise)
        assert (made.x - X).abs().max() > 1e-3


def test_a_scheduler_of_diffusers_steps_there_too():
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    options = {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    scheduler = DiffusersSolver(DDIMScheduler(beta_schedule="linear", **options))
    made = Sampler(backend, [CFGPlusPlus(0.6)], scheduler, num_inference_steps=5)
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = noise
    for t, s in pairwise(made.times):
        cond, uncond = (Sampler(backend).denoise(x, t, c) for c in (1, UNCONDITIONAL))
        alpha, sigma = backend.schedule.at(s)
        x = alpha * (0.6 * cond.x0 + 0.4 * uncond.x0) + sigma * uncond.noise
    torch.testing.assert_close(made.sample(1, seeds=[4]).x, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", [DDPM(), DDIM(0.5), DPMSolverPP(), Heun()])
def test_with_every_solver_it_finds_the_class_of_its_condition(solver):
    backend = mixture()
    sampler = Sampler(backend, [CFGPlusPlus(0.8)], solver, num_inference_steps=20)
    x = sampler.sample(2, seeds=range(8)).x
    nearest = (x[:, None] - backend.means).flatten(2).norm(dim=2).argmin(1)
    assert (nearest == 2).all()


def test_one_call_and_two_rows_a_step():
    for scale, rows in ((0.6, 2), (1.0, 2), (0.0, 1)):
        sampler = Sampler(mixture(), [CFGPlusPlus(scale)], num_inference_steps=4)
        stats = sampler.sample(1).stats
        assert (stats.evaluated, stats.calls) == (4 * rows, 4)
    views = Anagram({"identity": 0, "flip": 1})
    stats = Sampler(mixture(), [CFGPlusPlus(0.6), views], num_inference_steps=4).sample().stats
    assert (stats.evaluated, stats.calls) == (4 * 4, 4)


def test_around_an_anagram_it_is_the_mean_of_what_each_view_would_have():
    backend, t = mixture(), 0.1
    views = Anagram({"identity": 0, "flip": 1})
    made = Sampler(backend, [CFGPlusPlus(0.7), views]).denoise(X, t)
    alone = Sampler(backend, [CFGPlusPlus(0.7)])
    one, other = alone.denoise(X, t, 0), alone.denoise(X.flip(-2), t, 1)
    for part in ("x0", "noise", "x"):
        mean = (getattr(one, part) + getattr(other, part).flip(-2)) / 2
        torch.testing.assert_close(getattr(made, part), mean)


@pytest.mark.parametrize("inside", [[], [Hybrid(1, Anagram({"identity": 1, "flip": 2}))]])
def test_it_obeys_the_law(inside):
    check_stack([CFGPlusPlus(0.6), *inside], shape=(1, 8, 8))


@pytest.mark.parametrize("outside", [CFG(2.0), Anagram({"identity": 1}), DynamicThreshold()])
def test_anything_around_it_raises(outside):
    with pytest.raises(ValueError, match="must be the outermost plugin .* Put it before"):
        Sampler(mixture(), [outside, CFGPlusPlus(0.5)])


def test_in_place_of_a_condition_it_raises():
    with pytest.raises(ValueError, match="must be the outermost"):
        Sampler(mixture(), [Anagram({"identity": CFGPlusPlus(0.5)})])


def test_it_is_in_the_recipe():
    again = decode(json.loads(json.dumps(encode(CFGPlusPlus(0.5), installed()))), installed())
    assert (type(again), again.scale) == (CFGPlusPlus, 0.5)


@pytest.mark.parametrize(
    ("scale", "error"),
    [(1.5, ValueError), (-0.1, ValueError), (math.nan, ValueError), ("1", TypeError)],
)
def test_bad_arguments_raise(scale, error):
    with pytest.raises(error, match="CFGPlusPlus: "):
        CFGPlusPlus(scale)


def test_every_prediction_has_its_turn():
    """The same sample whatever the model speaks, from a little below pure noise."""
    samples = []
    for prediction in PREDICTIONS.values():
        backend = mixture(DiscreteSchedule.linear(), prediction.name)
        samples.append(Sampler(backend, [CFGPlusPlus(0.5)], num_inference_steps=5).sample(1).x)
    for other in samples[1:]:
        torch.testing.assert_close(other, samples[0], rtol=1e-6, atol=1e-6)


def test_walks_beside_it_raise():
    with pytest.raises(ValueError, match="Langevin, whose walks would repeat its shift"):
        Sampler(mixture(), [CFGPlusPlus(0.8), Langevin(1)])
