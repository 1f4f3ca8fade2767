"""The divergence of a field: exact by all unit vectors, without bias by random signs."""

import itertools

import pytest
import torch

from composer.authoring import Hutchinson

SHAPE = (1, 1, 3)
MATRIX = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, -1]], dtype=torch.float64)
X = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def linear(x):
    return (x.flatten(-3) @ MATRIX.T).unflatten(-1, SHAPE)


def bent(x):
    return linear(x) + x**3


def found(hutchinson, field):
    return hutchinson.divergence(field(X + hutchinson.offsets))


def test_all_unit_vectors_give_the_trace():
    exact = Hutchinson.exact(X)
    torch.testing.assert_close(found(exact, linear), torch.full((2,), 5.0, dtype=torch.float64))
    trace = 5 + 3 * X.square().sum((1, 2, 3))
    torch.testing.assert_close(found(exact, bent), trace, rtol=0, atol=1e-8)


def test_the_mean_over_all_signs_is_the_trace_and_one_direction_is_its_product():
    every = torch.tensor([*itertools.product((-1.0, 1.0), repeat=3)], dtype=torch.float64)
    noise = [signs.reshape(1, *SHAPE).expand(2, -1, -1, -1) for signs in every]
    each = torch.stack([found(Hutchinson.random([one]), linear) for one in noise])
    torch.testing.assert_close(each[:, 0], torch.einsum("ki,ij,kj->k", every, MATRIX, every))
    torch.testing.assert_close(each.mean(0), torch.full((2,), 5.0, dtype=torch.float64))
    together = found(Hutchinson.random(noise), linear)
    torch.testing.assert_close(together, each.mean(0))


def test_several_fields_at_once():
    hutchinson = Hutchinson.random([torch.randn_like(X) for _ in range(3)])
    both = torch.stack([field(X + hutchinson.offsets) for field in (linear, bent)], 2)
    expected = torch.stack([found(hutchinson, field) for field in (linear, bent)], 1)
    torch.testing.assert_close(hutchinson.divergence(both), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_narrow_dtypes_it_is_as_good_as_they_allow(dtype):
    exact = Hutchinson.exact(X.to(dtype))
    values = bent((X.to(dtype) + exact.offsets).double()).to(dtype)
    trace = 5 + 3 * X.square().sum((1, 2, 3))
    allowed = 30 * torch.finfo(dtype).eps ** (2 / 3)
    torch.testing.assert_close(exact.divergence(values).double(), trace, rtol=0, atol=allowed)
