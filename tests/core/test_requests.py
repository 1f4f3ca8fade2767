"""Estimates of one kind combine; those of two are refused."""

import pytest
import torch
from conftest import mixture

from composer import Request, Sampler
from composer.predictions import PREDICTIONS, SAMPLE
from composer.requests import combine
from composer.schedules import DiscreteSchedule
from composer_plugins import APG, CFG, Anagram, DynamicThreshold, Hybrid, Rescale

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_a_new_prediction_says_what_it_means():
    plain = Sampler(mixture()).denoise(X, 0.3, 1)
    same = plain.replace(prediction=plain.x0, kind=SAMPLE)
    torch.testing.assert_close(same.x0, plain.x0)
    torch.testing.assert_close(same.noise, plain.noise)
    assert plain.replace(prediction=plain.x0).kind is plain.kind


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_an_estimate_with_another_image_or_noise_has_it_at_both_ends(kind):
    """Where there is no noise, or no signal, the other is zero and nothing is divided by it."""
    schedule, other = DiscreteSchedule([0.9, 0.4, 0.0]), torch.full_like(X, 0.7)
    for t in (schedule.time_at(0.0), 1.0, schedule.time_at(1.0)):
        sampler = Sampler(mixture(schedule, kind), num_inference_steps=3)
        plain = sampler.denoise(X, t, 1)
        alpha, sigma = schedule.at(t)
        changed = plain.with_x0(other)
        torch.testing.assert_close(changed.x0, other)
        expected = (X - alpha * other) / sigma if sigma else other * 0
        torch.testing.assert_close(changed.noise, expected)
        changed = plain.with_noise(other)
        torch.testing.assert_close(changed.noise, other)
        expected = (X - sigma * other) / alpha if alpha else other * 0
        torch.testing.assert_close(changed.x0, expected)


@pytest.mark.parametrize("factor", ["2", None, [1.0]])
def test_an_estimate_is_multiplied_by_numbers_alone(factor):
    estimate = Sampler(mixture()).denoise(X, 0.3, 1)
    for attempt in (
        lambda: estimate * factor,
        lambda: factor * estimate,
        lambda: estimate / factor,
    ):
        with pytest.raises(
            TypeError, match="factor of an estimate must be a number or a tensor, got"
        ):
            attempt()
    with pytest.raises(TypeError, match="factor of an estimate must be a number or a tensor, got"):
        estimate * estimate


def test_what_may_be_none_can_be_made_none_again():
    estimate = Sampler(mixture()).denoise(X, 0.3, 1)
    with_variance = estimate.replace(variance=X)
    assert with_variance.replace(prediction=X).variance is X
    assert with_variance.replace(variance=None).variance is None
    request = Request(X, 0.3, 1, model="weak")
    assert request.replace(x=2 * X).model == "weak"
    assert request.replace(model=None).model is None
    assert request.replace(condition=None).condition is None


def test_estimates_of_two_kinds_are_not_added():
    plain = Sampler(mixture()).denoise(X, 0.3, 1)
    other = plain.replace(prediction=plain.x0, kind=SAMPLE)
    for attempt in (
        lambda: plain + other,
        lambda: other - plain,
        lambda: combine((1.0, 1.0), (plain, other)),
    ):
        with pytest.raises(ValueError, match="must have the same kind to be combined"):
            attempt()


def same_kind(plugin):
    return Anagram({"identity": plugin, "flip": plugin})


@pytest.mark.parametrize(
    ("stack", "kinds"),
    [
        (Anagram({"identity": Rescale(CFG(2.0)), "flip": 1}), "flow and v"),
        (Hybrid(APG(CFG(2.0)), same_kind(Rescale(CFG(2.0)))), "sample and v"),
        (Hybrid(same_kind(DynamicThreshold()), 1), "flow and sample"),
        (Hybrid(same_kind(DynamicThreshold()), APG(CFG(2.0))), ""),
        (Hybrid(same_kind(1), same_kind(CFG(2.0))), ""),
        (Rescale(same_kind(APG(CFG(2.0)))), ""),
    ],
)
def test_kinds_are_known_before_any_estimate(stack, kinds):
    if not kinds:
        Sampler(mixture(), [stack]).denoise(X, 0.3)
        return
    with pytest.raises(ValueError, match=f"would combine estimates of the kinds {kinds}"):
        Sampler(mixture(), [stack])


def test_a_threshold_in_one_view_of_two_is_refused():
    stack = [Anagram({"identity": DynamicThreshold(), "flip": 1})]
    with pytest.raises(
        ValueError, match="Anagram would combine estimates of the kinds flow and sa"
    ):
        Sampler(mixture(), stack)  # when it is built, at no model call
    Sampler(mixture(), [Anagram({"identity": DynamicThreshold(), "flip": DynamicThreshold()})])
