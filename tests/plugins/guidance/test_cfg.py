import math

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Estimate, Sampler
from composer.predictions import FLOW
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer_plugins import CFG, Anagram
from composer_plugins.guidance.cfg import guide


@given(st.floats(-5, 20))
def test_guidance_is_the_standard_formula(scale):
    backend = mixture()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    cond, uncond = (Sampler(backend).denoise(x, 0.3, c).prediction for c in (1, UNCONDITIONAL))
    guided = Sampler(backend, [CFG(scale)]).denoise(x, 0.3, 1).prediction
    torch.testing.assert_close(guided, uncond + scale * (cond - uncond))


def test_the_variance_is_the_conditional_branch_s():
    x = torch.zeros(1, 1, 2, 2)
    cond, uncond = (Estimate(x, x + v, x, 0.5, FlowSchedule(), FLOW) for v in (1.0, 2.0))
    assert torch.equal(guide(uncond, cond, 7.0).variance, cond.variance)


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
def test_the_interval_is_of_noise_levels(schedule):
    backend = mixture(schedule)
    for state in Sampler(backend, [CFG(4.0, interval=(0.3, 0.7))]).stream(1, seeds=[0]):
        estimate = state.estimate
        level = schedule.noise_level(estimate.t)
        scale = 4.0 if 0.3 <= level <= 0.7 else 1.0
        same = Sampler(backend, [CFG(scale)]).denoise(estimate.x, estimate.t, 1)
        assert torch.equal(estimate.prediction, same.prediction)


def test_outside_the_interval_no_unconditional_row_is_asked():
    sampler = Sampler(mixture(), [CFG(4.0, interval=(0.0, 0.5))], num_inference_steps=10)
    assert sampler.sample(1).stats.evaluated == 5 * 1 + 5 * 2


def test_an_interval_is_the_same_for_all_views_inside_and_around():
    views, guided = Anagram({"identity": 0, "flip": 1}), CFG(4.0, interval=(0.0, 0.5))
    inside, around = (
        Sampler(mixture(), stack, num_inference_steps=10).sample(seeds=[3])
        for stack in ([views, guided], [guided, views])
    )
    torch.testing.assert_close(inside.x, around.x)
    assert inside.stats.evaluated == around.stats.evaluated == 5 * 2 + 5 * 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("3",), TypeError),
        ((True,), TypeError),
        ((math.nan,), ValueError),
        ((math.inf,), ValueError),
        ((2.0, (0.7, 0.3)), ValueError),
        ((2.0, (0.0, 1.5)), ValueError),
        ((2.0, (0.5,)), ValueError),
    ],
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="CFG: "):
        CFG(*arguments)
