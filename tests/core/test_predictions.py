import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composer.predictions import EPSILON, FLOW, PREDICTIONS, SAMPLE, V, mixed

kinds = st.sampled_from(sorted(PREDICTIONS))
angles = st.floats(0.05, math.pi / 2 - 0.05)


@given(kinds, angles, st.booleans(), st.integers(0, 2**31))
def test_every_prediction_gives_back_noise_and_image(kind, angle, straight, seed):
    alpha, sigma = math.cos(angle), math.sin(angle)
    if straight:
        alpha, sigma = alpha / (alpha + sigma), sigma / (alpha + sigma)
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    x = alpha * x0 + sigma * noise
    out = PREDICTIONS[kind].target(x0, noise, alpha, sigma)
    torch.testing.assert_close(PREDICTIONS[kind].noise(out, x, alpha, sigma), noise)
    torch.testing.assert_close(PREDICTIONS[kind].x0(out, x, alpha, sigma), x0)


def test_rows_are_those_of_the_literature():
    assert EPSILON.row(0.6, 0.8) == (0, 1)
    assert SAMPLE.row(0.6, 0.8) == (1, 0)
    assert V.row(0.6, 0.8) == (-0.8, 0.6)
    assert FLOW.row(0.6, 0.8) == (1, -1)


def test_epsilon_is_passed_through_bit_for_bit():
    out, x = torch.randn(2, 5)
    assert torch.equal(EPSILON.noise(out, x, 0.3, 0.9), out)


def test_a_sample_is_passed_through_bit_for_bit():
    out, x = torch.randn(2, 5)
    assert torch.equal(SAMPLE.x0(out, x, 0.3, 0.9), out)


def test_float32_keeps_the_image_where_alpha_is_tiny():
    """At the first time of a cosine schedule x and the noise differ by 5e-5 of an image."""
    alpha = 5e-5
    sigma = math.sqrt(1 - alpha**2)
    noise, x0 = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    x = alpha * x0 + sigma * noise
    exact = EPSILON.x0(noise.double(), x.double(), alpha, sigma)
    assert (EPSILON.x0(noise, x, alpha, sigma) - exact).abs().max() < 2e-4


def test_where_the_output_says_nothing_the_answer_is_the_prior_mean():
    out, x = torch.randn(2, 5)
    assert torch.equal(EPSILON.noise(out, x, 0.0, 1.0), out)
    assert torch.equal(EPSILON.x0(out, x, 0.0, 1.0), torch.zeros(5))
    assert torch.equal(SAMPLE.x0(out, x, 1.0, 0.0), out)
    assert torch.equal(SAMPLE.noise(out, x, 1.0, 0.0), torch.zeros(5))


@pytest.mark.parametrize("kind", [V, FLOW, SAMPLE])
def test_the_others_are_regular_at_pure_noise(kind):
    x0, x = torch.randn(2, 5)
    out = kind.target(x0, x, 0.0, 1.0)
    torch.testing.assert_close(kind.x0(out, x, 0.0, 1.0), x0)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_what_a_network_of_another_precision_says_is_read_in_that_of_the_image(kind):
    """Where its output is noise or image as it is, too: a sampler goes on in the image's dtype."""
    x = torch.randn(2, 1, 4, 4)
    out = torch.randn(2, 1, 4, 4).half()
    for read in (PREDICTIONS[kind].noise, PREDICTIONS[kind].x0):
        assert read(out, x, 0.6, 0.8).dtype == torch.float32


def test_a_mixture_is_one_new_tensor():
    x, y = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    given = x.clone(), y.clone()
    torch.testing.assert_close(mixed(0.3, x, -2.0, y), 0.3 * x - 2 * y)
    assert torch.equal(x, given[0])
    assert torch.equal(y, given[1])
