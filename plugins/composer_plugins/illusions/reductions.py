"""Weights of an anagram's views at each step, and a correction of the noise of a mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from composer import Estimate
from composer.arguments import finite_list
from composer.errors import shown

Rows = Sequence[Sequence[float]]


def mean(active: Sequence[int], step: int, now: Sequence[float]) -> list[float]:
    """Equal weights for the active views."""
    return [float(i in active) / len(active) for i in range(len(now))]


def weighted(active: Sequence[int], step: int, now: Sequence[float]) -> list[float]:
    """The weights at this noise level, normalised over the active views."""
    whole = sum(now[i] for i in active)
    if whole <= 0:  # no view takes part
        return [0.0] * len(now)
    return [now[i] / whole if i in active else 0.0 for i in range(len(now))]


def alternate(active: Sequence[int], step: int, now: Sequence[float]) -> list[float]:
    """Weight 1 for one active view, each in turn."""
    turn = active[step % len(active)]
    return [float(i == turn) for i in range(len(now))]


REDUCTIONS: dict[str, Callable[[Sequence[int], int, Sequence[float]], list[float]]] = {
    "mean": mean,
    "weighted": weighted,
    "alternate": alternate,
}


def weight_rows(weights: Sequence[float] | Rows, count: int, owner: str) -> Rows:
    """Weights as rows over the run, each of sum one; constant weights make one row."""
    if not isinstance(weights, Sequence) or isinstance(weights, str):
        raise TypeError(
            f"{owner}: weights must be a list or tuple of numbers, got {shown(weights)}."
        )
    varying = bool(weights) and all(isinstance(row, Sequence) for row in weights)
    rows = weights if varying else [weights]
    checked = [finite_list(row, f"{owner}: weights") for row in rows]
    for row in checked:
        if len(row) != count or not math.isclose(math.fsum(row), 1.0):
            raise ValueError(f"{owner}: weights must be {count} numbers that sum to 1, got {row}.")
    return checked


def interpolate(rows: Rows, place: float) -> list[float]:
    """The row at ``place`` in [0, 1] of rows spread evenly over it."""
    if len(rows) == 1:
        return list(rows[0])
    at = min(max(place, 0.0), 1.0) * (len(rows) - 1)
    index = min(int(at), len(rows) - 2)
    pairs = zip(rows[index], rows[index + 1], strict=True)
    return [a + (at - index) * (b - a) for a, b in pairs]


def rectified(
    mixture: Estimate, parts: Sequence[Estimate], weights: Sequence[float], strength: float
) -> Estimate:
    """Scale the noise of ``mixture`` to the length of the noises of its ``parts``.

    Two noises of unit variance that correlate by rho have a mean of standard deviation
    sqrt((1 + rho) / 2), so the sampler would take the image for cleaner than it is. This divides
    the noise of each image by (|mixture| / sum_i w_i |part_i|)^strength, which needs no rho. It is
    not linear, and it works on the noise for every prediction type.
    """
    alpha, _ = mixture.schedule.at(mixture.t)
    if alpha == 0:  # x is pure noise here, so its length is right
        return mixture
    lengths = [w * p.noise.flatten(1).norm(dim=1) for w, p in zip(weights, parts, strict=True)]
    ratio = mixture.noise.flatten(1).norm(dim=1) / torch.stack(lengths).sum(0)
    return mixture.with_noise(mixture.noise / ratio.pow(strength)[:, None, None, None])
