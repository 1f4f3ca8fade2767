"""CFG-Zero*, against diffusers and against its own definition."""

import json

import pytest
import torch
from conftest import mixture
from diffusers.guiders import ClassifierFreeZeroStarGuidance
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Sampler, installed
from composer.predictions import PREDICTIONS
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer_plugins import CFG, Anagram, CFGZeroStar

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def predictions(backend, t):
    return (Sampler(backend).denoise(X, t, c).prediction for c in (1, UNCONDITIONAL))


def velocity(estimate, width=1.0):
    return estimate.x0 - width * estimate.noise


@settings(max_examples=20)
@given(st.floats(-2, 12), st.floats(0.05, 0.95))
def test_over_a_flow_it_is_diffusers_own(scale, t):
    cond, uncond = predictions(mixture(), t)
    guider = ClassifierFreeZeroStarGuidance(scale, zero_init_steps=0)
    guider.set_state(step=0, num_inference_steps=1, timestep=None)
    ours = Sampler(mixture(), [CFGZeroStar(scale, zero_steps=0)]).denoise(X, t, 1)
    theirs = guider.forward(cond.float(), uncond.float()).pred
    torch.testing.assert_close(velocity(ours).float(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1.0, 2.0])
def test_the_unconditional_velocity_fits_the_conditional_one_best(width):
    """At scale 0 the velocity is s v_u, and what it lacks of v_c is orthogonal to v_u."""
    backend = mixture(FlowSchedule(noise_scale=width))
    cond, uncond, fitted = (
        velocity(Sampler(backend, stack).denoise(X, 0.3, c), width)
        for stack, c in (([], 1), ([], UNCONDITIONAL), ([CFGZeroStar(0.0, 0)], 1))
    )
    share = fitted / uncond
    torch.testing.assert_close(share, share[:, :, :1, :1].expand_as(share))
    missing = ((cond - fitted) * uncond).sum((1, 2, 3))
    torch.testing.assert_close(missing, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_a_flow_stands_still_in_the_zero_steps_and_asks_no_row(width):
    backend = mixture(FlowSchedule(noise_scale=width))
    sampler = Sampler(backend, [CFGZeroStar(3.0, zero_steps=2)], num_inference_steps=6)
    states = [state.x for state in sampler.stream(1, seeds=[5])]
    noise = width * torch.randn(
        1, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    torch.testing.assert_close(states[1], noise)
    assert (states[2] - noise).abs().max() > 0.01
    stats = sampler.sample(1).stats
    assert (stats.evaluated, stats.calls) == (4 * 2, 4)


def test_an_estimate_outside_of_a_run_is_guided():
    """Else denoise, invert and log_likelihood, which have no first step, would see no model."""
    made = [Sampler(mixture(), [CFGZeroStar(3.0, n)]).denoise(X, 0.5, 1).x0 for n in (0, 1)]
    assert torch.equal(*made)


def test_zero_steps_that_leave_no_step_raise():
    with pytest.raises(ValueError, match="zero_steps must be below the number of steps, 3, got 3"):
        Sampler(mixture(), [CFGZeroStar(3.0, zero_steps=3)], num_inference_steps=3)


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
def test_the_image_does_not_depend_on_the_prediction(schedule):
    plugin = CFGZeroStar(4.0)
    samples = [
        Sampler(mixture(schedule, kind), [plugin], num_inference_steps=5).sample(1).x
        for kind in PREDICTIONS
    ]
    for other in samples[1:]:
        torch.testing.assert_close(other, samples[0], rtol=1e-6, atol=1e-6)


def test_scale_one_is_the_conditional_model_and_asks_one_row():
    sampler = Sampler(mixture(), [CFGZeroStar(1.0, zero_steps=0)], num_inference_steps=4)
    made = sampler.sample(1)
    torch.testing.assert_close(made.x, Sampler(mixture(), num_inference_steps=4).sample(1).x)
    assert made.stats.evaluated == 4


def test_a_scale_a_seed():
    both = Sampler(mixture(), [CFGZeroStar([2.0, 5.0])], num_inference_steps=4)
    for seed, scale in enumerate((2.0, 5.0)):
        one = Sampler(mixture(), [CFGZeroStar(scale)], num_inference_steps=4)
        made = both.sample(1, seeds=[0, 1]).x[seed : seed + 1]
        torch.testing.assert_close(made, one.sample(1, seeds=[seed]).x)


def test_inside_an_anagram_it_sees_each_view():
    views, plugin = Anagram({"identity": 0, "flip": 1}), CFGZeroStar(4.0, zero_steps=0)
    inside = Sampler(mixture(), [views, plugin]).denoise(X, 0.2)
    alone = Sampler(mixture(), [plugin])
    one, other = alone.denoise(X, 0.2, 0).x0, alone.denoise(X.flip(-2), 0.2, 1).x0.flip(-2)
    torch.testing.assert_close(inside.x0, (one + other) / 2)


def test_the_interval_saves_rows():
    plugin = CFGZeroStar(4.0, zero_steps=1, interval=(0.0, 0.5))
    stats = Sampler(mixture(), [plugin], num_inference_steps=10).sample(1).stats
    assert (stats.evaluated, stats.calls) == (4 * 1 + 5 * 2, 9)


def test_it_leaves_the_law():
    x0 = {
        scale: Sampler(mixture(), [plugin]).denoise(X, 0.1, 1).x0
        for scale, plugin in (("fitted", CFGZeroStar(3.0, 0)), ("plain", CFG(3.0)))
    }
    assert (x0["fitted"] - x0["plain"]).abs().max() > 1e-3


def test_it_is_in_the_recipe():
    plugin = CFGZeroStar(5.0, 2, (0.1, 0.9))
    again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
    assert (again.scale, again.zero_steps, again.interval) == (5.0, 2, (0.1, 0.9))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(("a",), TypeError), ((2.0, -1), ValueError), ((2.0, 1, (0.5, 0.2)), ValueError)],
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="CFGZeroStar: "):
        CFGZeroStar(*arguments)
