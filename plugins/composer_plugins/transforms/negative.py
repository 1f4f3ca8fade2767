"""The photographic negative."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from composer import Transform


@dataclass(frozen=True)
class Negative(Transform):
    """x -> -x, for images in [-1, 1]. A variance stays: Var(-x) = Var(x)."""

    def __call__(self, x: Tensor) -> Tensor:
        return -x

    def inverse(self, x: Tensor) -> Tensor:
        return -x

    def inverse_variance(self, variance: Tensor) -> Tensor:
        return variance

    def view_variance(self, variance: Tensor) -> Tensor:
        return variance
