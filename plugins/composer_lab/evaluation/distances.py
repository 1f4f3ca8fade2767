"""Distances between two sets of features of any network.

Features are (N, D), one row per image, of a frozen network. Distances of different networks, or of
different counts, cannot be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from composer.arguments import integer

MAX_ROWS = 1000
"""Memory bound: the rows of a matrix of distances that are held at once."""


class Moments(NamedTuple):
    """Mean (D,) and covariance (D, D) of features, in float64."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor) -> Moments:
    """Of features (N, D), N at least 2; the covariance is the unbiased one."""
    _check(features, "moments: features", least=2)
    wide = features.double()
    return Moments(wide.mean(0), torch.atleast_2d(wide.T.cov()))


def frechet_distance(one: Moments, other: Moments) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)): the squared Frechet distance of two Gaussians.

    Heusel et al. 2017, arXiv 1706.08500. With C = A A^T and C' = B B^T the trace of the square root
    is the sum of the singular values of A^T B, so that no matrix square root is needed and singular
    covariances do no harm.
    """
    gap = (one.mean - other.mean).square().sum()
    traces = one.covariance.trace() + other.covariance.trace()
    overlap = torch.linalg.svdvals(_factor(one.covariance).T @ _factor(other.covariance)).sum()
    return float((gap + traces - 2 * overlap).clamp(min=0))


def _factor(covariance: Tensor) -> Tensor:
    """A with A A^T = covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


class Manifolds(NamedTuple):
    """Overlap of generated and real images; each value in [0, 1].

    Attributes:
        precision: share of the generated images that lie within the real manifold.
        recall: share of the real images that lie within the generated manifold.
        coverage: share of the real images whose ball holds a generated one.
    """

    precision: float
    recall: float
    coverage: float


def manifolds(real: Tensor, made: Tensor, k: int = 3) -> Manifolds:
    """Compare features by balls whose radius is the distance to the k-th neighbour of the same set.

    A manifold is the union of the balls. Precision and recall: Kynkaanniemi et al. 2019, "Improved
    Precision and Recall Metric for Assessing Generative Models", arXiv 1904.06991 (its k is 3).
    Coverage: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models",
    arXiv 2002.09797. Give equal counts of both.

    Args:
        real, made: (N, D), more than k of each.
    """
    k = integer(k, "manifolds: k", least=1)
    for features, name in ((real, "real"), (made, "made")):
        _check(features, f"manifolds: {name}", least=k + 1)
    if real.shape[1] != made.shape[1]:
        raise ValueError(
            f"manifolds: real and made must have one width, got {real.shape[1]} and "
            f"{made.shape[1]}. Take both from one network."
        )
    real, made = real.double(), made.double()
    real_radii, made_radii = radii(real, k), radii(made, k)
    precise = torch.zeros(len(made), dtype=torch.bool, device=made.device)
    recalled, covered = [], []
    for part, reach in zip(real.split(MAX_ROWS), real_radii.split(MAX_ROWS), strict=True):
        distances = torch.cdist(part, made)
        inside = distances <= reach[:, None]
        precise |= inside.any(0)
        covered.append(inside.any(1))
        recalled.append((distances <= made_radii).any(1))
    shares = (precise, torch.cat(recalled), torch.cat(covered))
    return Manifolds(*(float(share.double().mean()) for share in shares))


def radii(features: Tensor, k: int) -> Tensor:
    """The distance (N,) of each feature to its k-th nearest neighbour."""
    nearest = [
        torch.cdist(part, features).kthvalue(k + 1, dim=1).values  # the nearest is itself
        for part in features.split(MAX_ROWS)
    ]
    return torch.cat(nearest)


def _check(features: Tensor, name: str, least: int) -> None:
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(f"{name} must be a tensor (N, D).")
    if len(features) < least:
        raise ValueError(f"{name} must have at least {least} rows, got {len(features)}.")
    if not features.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or Inf. Check what computed it.")
