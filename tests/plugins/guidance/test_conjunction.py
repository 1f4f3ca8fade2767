"""AND and NOT of conditions."""

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Estimate, Request, Sampler
from composer.predictions import FLOW
from composer.schedules import FlowSchedule
from composer.testing import IdentityBackend
from composer_plugins import CFG, Anagram, Conjunction

weights = st.dictionaries(st.integers(0, 3), st.floats(-3, 5), min_size=1)


def image():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, 8, 8, generator=generator, dtype=torch.float64)


@given(weights)
def test_it_is_the_formula_of_composable_diffusion(chosen):
    backend, x = mixture(), image()
    free = Sampler(backend).denoise(x, 0.4, UNCONDITIONAL).prediction
    expected = free.clone()
    for condition, weight in chosen.items():
        expected += weight * (Sampler(backend).denoise(x, 0.4, condition).prediction - free)
    ours = Sampler(backend, [Conjunction(chosen)]).denoise(x, 0.4).prediction
    torch.testing.assert_close(ours, expected)


@given(weights, st.floats(0, 5))
def test_it_obeys_the_law(chosen, scale):
    x = image()
    stack = [Anagram({"identity": Conjunction(chosen), "flip": 1}), CFG(scale)]
    estimate = Sampler(IdentityBackend((1, 8, 8)), stack).denoise(x, 0.4)
    torch.testing.assert_close(estimate.prediction, x)


@given(st.floats(-2, 8))
def test_of_one_condition_it_is_guidance(scale):
    backend, x = mixture(), image()
    ours = Sampler(backend, [Conjunction({2: scale})]).denoise(x, 0.4).prediction
    torch.testing.assert_close(ours, Sampler(backend, [CFG(scale)]).denoise(x, 0.4, 2).prediction)


def test_a_condition_takes_part_within_its_interval():
    backend, x = mixture(), image()  # a straight path: the noise level is 1 - t

    def ours(weights, t, intervals=None):
        return Sampler(backend, [Conjunction(weights, intervals)]).denoise(x, t).prediction

    both, ends = {1: 2.0, 2: -1.0}, ((0.0, 1.0), (0.5, 1.0))
    torch.testing.assert_close(ours(both, 0.3, ends), ours(both, 0.3))
    torch.testing.assert_close(ours(both, 0.7, ends), ours({1: 2.0}, 0.7))
    free = Sampler(backend).denoise(x, 0.7, UNCONDITIONAL).prediction
    torch.testing.assert_close(ours(both, 0.7, ((0.5, 1.0), (0.5, 1.0))), free)


@given(weights)
def test_the_variance_is_that_of_the_condition_of_the_largest_weight(chosen):
    request = Request(image(), 0.4, schedule=FlowSchedule())
    asking = Conjunction(chosen).noise_estimate(request)
    asked = next(asking)
    answers = [
        Estimate(torch.zeros_like(r.x), torch.full_like(r.x, k), r.x, r.t, FlowSchedule(), FLOW)
        for k, r in enumerate(asked)
    ]
    with pytest.raises(StopIteration) as stop:
        asking.send(answers)
    kept = asked[int(stop.value.value.variance[0, 0, 0, 0])].condition
    given_weights = {c: w for c, w in chosen.items() if w != 0}
    if given_weights:
        assert given_weights[kept] == max(given_weights.values())
    else:
        assert kept is UNCONDITIONAL


@pytest.mark.parametrize(
    ("chosen", "rows"),
    [({1: 2.0, 2: -1.0}, 2), ({1: 2.0, 2: 0.0}, 2), ({1: 0.1, 2: 0.2, 3: 0.7}, 3), ({1: 0.0}, 1)],
)
def test_it_asks_for_no_row_of_weight_zero(chosen, rows):
    stats = Sampler(mixture(), [Conjunction(chosen)], num_inference_steps=1).sample().stats
    assert stats.evaluated == rows


def test_a_negative_prompt_takes_the_place_of_no_prompt():
    backend, x = mixture(), image()
    cond, against = (Sampler(backend).denoise(x, 0.4, k).prediction for k in (1, 2))
    ours = Sampler(backend, [CFG(3.0, negative=2)]).denoise(x, 0.4, 1).prediction
    torch.testing.assert_close(ours, against + 3 * (cond - against))


def test_bad_arguments_raise():
    for weights in ({}, [1, 2], None):
        with pytest.raises(TypeError, match="weights must be a dict"):
            Conjunction(weights)
    with pytest.raises(ValueError, match="Conjunction: intervals must be 1"):
        Conjunction({3: 1.0}, ((0, 1), (0, 1)))
    with pytest.raises(TypeError, match="the weight of 3"):
        Conjunction({3: "much"})
    with pytest.raises(ValueError, match="Conjunction: a condition must be a component"):
        Sampler(mixture(), [Conjunction({77: 1.0})])
    with pytest.raises(ValueError, match="CFG: negative"):
        Sampler(mixture(), [CFG(2.0, negative=77)])
