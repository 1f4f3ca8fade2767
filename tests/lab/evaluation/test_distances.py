"""Distances between sets of features, against closed forms and independent implementations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from composer_lab.evaluation import distances
from composer_lab.evaluation.distances import Moments, frechet_distance, manifolds, moments, radii


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gaussian(width, seed, rank=None):
    root = normal(width, rank or width, seed=seed)
    return Moments(normal(width, seed=seed + 1), root @ root.T)


def rotation(width, seed):
    return torch.linalg.qr(normal(width, width, seed=seed)).Q


@settings(max_examples=20)
@given(st.integers(2, 8), st.integers(0, 99))
def test_of_gaussians_with_common_axes_it_is_the_distance_of_their_spreads(width, seed):
    """C = Q diag(a^2) Q^T: |m - m'|^2 + sum (a - b)^2, also where some a are zero."""
    axes, (a, b) = rotation(width, seed), normal(2, width, seed=seed).abs()
    a[0] = 0
    one, other = (
        Moments(mean, axes @ spread.square().diag() @ axes.T)
        for mean, spread in zip(normal(2, width, seed=seed + 1), (a, b), strict=True)
    )
    closed = (one.mean - other.mean).square().sum() + (a - b).square().sum()
    assert frechet_distance(one, other) == pytest.approx(float(closed), rel=1e-6, abs=1e-6)


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(0, 99))
def test_it_is_that_of_the_matrix_square_root(width, seed):
    one, other = gaussian(width, seed), gaussian(width, seed + 100)
    product = one.covariance.numpy() @ other.covariance.numpy()
    traces = one.covariance.trace() + other.covariance.trace()
    theirs = (one.mean - other.mean).square().sum() + traces - 2 * np.trace(sqrtm(product)).real
    assert frechet_distance(one, other) == pytest.approx(float(theirs), rel=1e-6, abs=1e-6)


@settings(max_examples=20)
@given(st.integers(2, 8), st.integers(0, 99))
def test_it_is_a_distance_that_rotation_leaves_alone(width, seed):
    one, other = gaussian(width, seed), gaussian(width, seed + 100, rank=1)
    found = frechet_distance(one, other)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(other, other) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(other, one) == pytest.approx(found)
    turn = rotation(width, seed)
    turned = (Moments(turn @ m, turn @ c @ turn.T) for m, c in (one, other))
    assert frechet_distance(*turned) == pytest.approx(found)


def test_moments_are_numpys_and_of_half_precision_features_in_float64():
    features = normal(50, 4)
    found = moments(features)
    np.testing.assert_allclose(found.mean, features.numpy().mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(features.numpy().T))
    assert moments(features.half()).covariance.dtype == torch.float64
    assert moments(features[:, :1]).covariance.shape == (1, 1)


def test_samples_of_a_gaussian_come_near_it_as_they_grow_in_number():
    truth = gaussian(4, 3)
    root = torch.linalg.cholesky(truth.covariance)
    features = truth.mean + normal(40_000, 4, seed=5) @ root.T
    few, many = (frechet_distance(moments(features[:n]), truth) for n in (400, 40_000))
    assert 0 < many < 0.005 < few


def by_hand(real, made, k):
    """The definitions, point by point."""

    def reach(points):
        return [
            sorted(math.dist(p, q) for j, q in enumerate(points) if j != i)[k - 1]
            for i, p in enumerate(points)
        ]

    def within(point, centres, reaches):
        return any(math.dist(point, c) <= r for c, r in zip(centres, reaches, strict=True))

    real_reach, made_reach = reach(real), reach(made)
    precision = np.mean([within(p, real, real_reach) for p in made])
    recall = np.mean([within(p, made, made_reach) for p in real])
    covered = [
        any(math.dist(p, q) <= r for q in made) for p, r in zip(real, real_reach, strict=True)
    ]
    return precision, recall, np.mean(covered)


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(0, 99), st.floats(0, 2), st.integers(6, 25))
def test_manifolds_are_those_of_their_definitions(k, seed, shift, count):
    real, made = normal(20, 3, seed=seed), 0.7 * normal(count, 3, seed=seed + 100) + shift
    before, distances.MAX_ROWS = distances.MAX_ROWS, 7
    try:
        found = manifolds(real, made, k)
    finally:
        distances.MAX_ROWS = before
    assert found == pytest.approx(by_hand(real.tolist(), made.tolist(), k))


def test_radii_reach_to_the_kth_of_the_others():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert radii(line, 1).tolist() == [1, 1, 2, 4]
    assert radii(line, 2).tolist() == [3, 2, 3, 6]


def test_what_is_lost_shows_where_it_should():
    first, second = normal(60, 2), normal(60, 2, seed=1) + 100
    both = torch.cat([first, second])
    assert manifolds(both, both) == (1, 1, 1)
    assert manifolds(both, both + 1000) == (0, 0, 0)
    half = manifolds(both, first)  # one of two modes
    assert half == pytest.approx((1, 0.5, 0.5))
    middle = first.mean(0) + 1e-3 * normal(60, 2, seed=2)  # collapsed, though each sample is good
    collapsed = manifolds(first, middle)
    assert collapsed.precision == 1
    assert collapsed.recall == 0
    astray = manifolds(first, torch.cat([first, second]))  # half is nothing like the real
    assert (astray.precision, astray.recall) == (0.5, 1)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (lambda: moments(torch.zeros(1, 3)), "moments: features must have at least 2 rows, got 1"),
        (lambda: moments(torch.zeros(3)), "must be a tensor"),
        (lambda: moments(torch.full((3, 2), math.nan)), "NaN or Inf"),
        (lambda: manifolds(normal(3, 2), normal(9, 2)), "real must have at least 4 rows, got 3"),
        (lambda: manifolds(normal(9, 2), normal(9, 3)), "one width, got 2 and 3"),
        (lambda: manifolds(normal(9, 2), normal(9, 2), 0), "k must be an integer of at least 1"),
    ],
)
def test_what_cannot_be_compared_raises(measure, words):
    with pytest.raises(ValueError, match=words):
        measure()
