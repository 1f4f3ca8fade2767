"""The photographic negative, of everything or of the details."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from composer import Transform
from composer.arguments import integer
from composer_plugins.transforms.motion import wide
from composer_plugins.transforms.permutation import divisor


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


@dataclass(frozen=True)
class DetailNegative(Transform):
    """The negative of the details alone: x -> 2 P x - x, with P the mean over square cells.

    From afar it shows the same image, from near the negative. P is an orthogonal projection, so
    this is a reflection: orthogonal, and its own inverse. The squared entries map the variance:
    with m pixels per cell, 1 - 4/m of the pixel's own plus 4/m of the cell's mean (see
    :class:`~composer_plugins.transforms.Orthogonal`).

    Args:
        grid: largest number of cells along each side. Where it does not divide the side, the view
            takes the largest smaller number that does.
    """

    grid: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", integer(self.grid, "DetailNegative: grid", least=1))

    def __call__(self, x: Tensor) -> Tensor:
        return self._drawn_to_mean(x, 2.0, -1.0)

    def inverse(self, x: Tensor) -> Tensor:
        return self(x)

    def view_variance(self, variance: Tensor) -> Tensor:
        down, across = self._cells(variance)
        pixels = variance.shape[-2] * variance.shape[-1] / (down * across)
        return self._drawn_to_mean(variance, 4 / pixels, 1 - 4 / pixels)

    def inverse_variance(self, variance: Tensor) -> Tensor:
        return self.view_variance(variance)

    def _cells(self, x: Tensor) -> tuple[int, int]:
        return divisor(x.shape[-2], self.grid), divisor(x.shape[-1], self.grid)

    def _drawn_to_mean(self, x: Tensor, of_mean: float, of_pixel: float) -> Tensor:
        down, across = self._cells(x)
        cells = wide(x).unflatten(-1, (across, -1)).unflatten(-3, (down, -1))
        mixed: Tensor = of_mean * cells.mean((-3, -1), keepdim=True) + of_pixel * cells
        return mixed.reshape(x.shape).to(x.dtype)
