"""How views are weighed over time, and what a mean does to noise."""

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler, get_transform
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule
from composer.testing import IdentityBackend
from composer_plugins import Anagram, SDEdit
from composer_plugins.illusions.reductions import interpolate, rectified

ROWS = ((1.0, 0.0), (0.5, 0.5), (0.25, 0.75))


@given(st.floats(0, 1))
def test_rows_of_weights_are_interpolated(place):
    (first, second) = interpolate(ROWS, place)
    expected = 1 - place if place <= 0.5 else 0.5 - (place - 0.5) / 2
    assert first == pytest.approx(expected)
    assert first + second == pytest.approx(1)


def test_weights_may_change_with_the_noise_level():
    backend = mixture()
    plugin = Anagram({"identity": 0, "flip": 1}, "weighted", ROWS)
    flip = get_transform("flip")
    for state in Sampler(backend, [plugin], num_inference_steps=4).stream():
        e = state.estimate
        weight = interpolate(ROWS, e.t)[0]
        zero = Sampler(backend).denoise(e.x, e.t, 0).prediction
        one = flip.inverse(Sampler(backend).denoise(flip(e.x), e.t, 1).prediction)
        torch.testing.assert_close(e.prediction, weight * zero + (1 - weight) * one)


def test_views_take_part_within_their_intervals():
    backend = mixture()
    views = {"identity": 0, "flip": 1}
    plugin = Anagram(views, intervals=((0.4, 1.0), (0.0, 0.6)))
    assert plugin.weights_at(0.9, 0) == [1, 0]
    assert plugin.weights_at(0.5, 0) == [0.5, 0.5]
    assert plugin.weights_at(0.1, 0) == [0, 1]
    # Ten steps at levels 1, .9 ... .1: three of them, .6, .5 and .4, ask both.
    stats = Sampler(backend, [plugin], num_inference_steps=10).sample().stats
    assert stats.evaluated == 10 + 3
    uneven = Anagram(views, "weighted", (0.2, 0.8), intervals=((0, 1), (0, 0.5)))
    assert uneven.weights_at(0.9, 0) == [1, 0]
    assert uneven.weights_at(0.5, 0) == pytest.approx([0.2, 0.8])


@given(st.sampled_from(["mean", "alternate"]), st.sampled_from([0.05, 0.5, 0.95]))
def test_intervals_and_rows_obey_the_law(reduction, t):
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    backend = IdentityBackend((1, 8, 8))
    views = {"identity": 0, "flip": 1, "skew": 2}
    for plugin in (
        Anagram(views, reduction, intervals=((0, 0.6), (0.3, 1), (0, 1))),
        Anagram(views, "weighted", ((0.2, 0.3, 0.5), (2.0, -1.0, 0.0))),
    ):
        torch.testing.assert_close(Sampler(backend, [plugin]).denoise(x, t).prediction, x)


@given(st.sampled_from(sorted(PREDICTIONS)), st.floats(-0.99, 1), st.floats(0, 1))
def test_rectification_gives_the_mean_the_length_of_its_parts(kind, rho, strength):
    """Two noises that correlate by rho have a mean of length sqrt((1 + rho) / 2)."""
    backend = mixture(DiscreteSchedule.linear(), kind, (1, 64, 64))
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 1, 1, 64, 64, generator=generator, dtype=torch.float64)
    other = rho * one + (1 - rho**2) ** 0.5 * other
    estimate = Sampler(backend).denoise(one, 500, 0)
    parts = [estimate.with_noise(noise) for noise in (one, other)]
    mixed = estimate.with_noise((one + other) / 2)
    before = float(mixed.noise.norm() / one.norm())
    after = float(rectified(mixed, parts, (0.5, 0.5), strength).noise.norm() / one.norm())
    # 4096 pixels know a length to 1.1 % and rho to .016; allowed are five of each.
    assert before == pytest.approx(((1 + rho) / 2) ** 0.5, abs=0.08)
    lengths = float(sum(p.noise.norm() for p in parts) / 2 / one.norm())
    assert after == pytest.approx(before * (lengths / before) ** strength, rel=1e-6, abs=1e-6)


def test_rectification_runs_from_pure_noise():
    plugin = Anagram({"identity": 0, "flip": 1}, rectification=1.0)
    assert torch.isfinite(Sampler(mixture(), [plugin], num_inference_steps=4).sample().x).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduction": "weighted", "weights": ((0.5, 0.5), (0.5, 0.6))}, "sum to 1"),
        ({"reduction": "weighted", "weights": ((0.5, 0.5), 1.0)}, "must be a number"),
        ({"intervals": ((0, 1),)}, "intervals must be 2, one for each"),
        ({"intervals": ((0, 1), (0.5, 0.2))}, "low <= high"),
        ({"rectification": float("nan")}, "finite"),
        ({"rectification": 1.5}, r"in \[0, 1\]"),
        ({"rectification": 0.5, "reduction": "alternate"}, "rectification must be 0 with"),
        ({"intervals": 5}, "must be a list"),
    ],
)
def test_bad_arguments_raise(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        Anagram({"identity": 0, "flip": 1}, **options)


def test_a_moment_without_views_raises_before_any_call():
    plugin = Anagram({"identity": 0, "flip": 1}, intervals=((0.0, 0.4), (0.6, 1.0)))
    with pytest.raises(ValueError, match="views that take part at the noise level 0.5 "):
        Sampler(mixture(), [plugin], num_inference_steps=10)
    zero = Anagram({"identity": 0, "flip": 1}, "weighted", ((1, 0), (0, 1)), ((0, 0.5), (0, 1)))
    with pytest.raises(ValueError, match="views that take part at the noise level 1 "):
        Sampler(mixture(), [zero], num_inference_steps=10)
    # A start from an image leaves out what would be refused; what is asked is looked at again.
    half = Anagram({"identity": 0, "flip": 1}, intervals=((0, 0.5), (0, 0.5)))
    image = torch.zeros(1, 8, 8, dtype=torch.float64)
    Sampler(mixture(), [half, SDEdit(image, 0.4)], None, 10).sample()
    with pytest.raises(ValueError, match="must have a sum above 0"):
        Sampler(mixture(), [half, SDEdit(image, 0.9)], None, 10).sample()
