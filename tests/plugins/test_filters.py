"""The blur by matrices is the convolution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from composer_plugins import GaussianBlur
from composer_plugins.filters import _matrix

ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def convolved(x, sigma):
    """Pixel by pixel with its neighbours, mirrored at the edges; in float64."""
    height, width = x.shape[-2:]
    deviation = sigma * height / 64
    radius = min(math.ceil(8 * deviation), height - 1, width - 1)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / deviation) ** 2)
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    padded = F.pad(x.double(), (radius,) * 4, mode="reflect")
    return F.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None]).view(x.shape)


@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.floats(0.05, 60),
    st.sampled_from(list(ROUNDING)),
)
def test_it_is_the_convolution_with_mirrored_edges(size, sigma, dtype):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    blurred = GaussianBlur(sigma)(x)
    assert blurred.dtype == dtype
    assert (blurred - convolved(x, sigma)).abs().max() < ROUNDING[dtype]


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_at_the_sizes_of_models_too(size):
    x = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    assert (GaussianBlur(1.0)(x) - convolved(x, 1.0)).abs().max() < 1e-6


def test_matrices_are_made_once_and_not_kept_for_ever():
    _matrix.cache_clear()
    x = torch.randn(1, 1, 12, 12)
    for _ in range(3):
        GaussianBlur(2.0)(x)
    assert (_matrix.cache_info().misses, _matrix.cache_info().currsize) == (1, 1)
    for sigma in range(1, 100):
        GaussianBlur(sigma)(x)
    assert _matrix.cache_info().currsize <= 16


def test_a_matrix_made_in_inference_mode_serves_training():
    _matrix.cache_clear()
    x = torch.randn(1, 1, 12, 12)
    with torch.inference_mode(), torch.device("meta"):
        blurred = GaussianBlur(2.0)(x)
    leaf = x.clone().requires_grad_()
    GaussianBlur(2.0)(leaf).square().sum().backward()
    # The gradient of |G x|^2 is 2 G^T G x, whose product with x is 2 |G x|^2.
    torch.testing.assert_close((leaf.grad * x).sum(), 2 * blurred.square().sum())
