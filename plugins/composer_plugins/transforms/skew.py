"""Rolls of the whole image, and of columns or rows by amounts that grow along the image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from composer.arguments import choice, finite
from composer.authoring import REFERENCE_SIZE
from composer.errors import shown
from composer_plugins.transforms.motion import Moving
from composer_plugins.transforms.permutation import PixelPermutation

FURTHEST = 10**6
_ALONG = {"columns": -2, "rows": -1}


@dataclass(frozen=True)
class Roll(Moving):
    """Roll the image down and to the right, wrapping around; the default swaps its quarters.

    Args:
        rows: how far down, in pixels of an image 64 high; scales with the height.
        columns: how far to the right, in pixels of an image 64 wide; scales with the width.
    """

    rows: float = 32.0
    columns: float = 32.0

    def __post_init__(self) -> None:
        _reach(self.rows, "Roll: rows")
        _reach(self.columns, "Roll: columns")

    def __call__(self, x: Tensor) -> Tensor:
        return self._rolled(x, 1)

    def inverse(self, x: Tensor) -> Tensor:
        return self._rolled(x, -1)

    def between(self, x: Tensor, u: float) -> Tensor:
        """The image rolled by a part of the way, in whole pixels."""
        return self._rolled(x, u)

    def _rolled(self, x: Tensor, share: float) -> Tensor:
        sides = zip((self.rows, self.columns), x.shape[-2:], strict=True)
        shifts = [round(share * round(pixels * side / REFERENCE_SIZE)) for pixels, side in sides]
        return x.roll(shifts, (-2, -1))


def _reach(value: float, name: str) -> None:
    """Raise a ValueError for distances beyond the largest whole number of pixels."""
    if abs(finite(value, name)) > FURTHEST:
        raise ValueError(f"{name} must be from -{FURTHEST} to {FURTHEST}, got {shown(value)}.")


class _Skewed(PixelPermutation):
    """Columns roll down, or rows to the right, each by its own amount, wrapping around."""

    axis: Literal["columns", "rows"]

    @abstractmethod
    def shifts(self, length: int, count: int) -> Tensor:
        """(count,) int64: the distance that each of ``count`` columns (or rows) of ``length``
        rolls."""

    def order(self, height: int, width: int) -> Tensor:
        return self._rolled(torch.arange(height * width).reshape(height, width), 1).flatten()

    def between(self, x: Tensor, u: float) -> Tensor:
        """Columns rolled by a part of their way, in whole pixels."""
        return self._rolled(x, u)

    def _rolled(self, x: Tensor, share: float) -> Tensor:
        along = _ALONG[self.axis]
        length, count = x.shape[along], x.shape[-3 - along]
        shifts = (share * self.shifts(length, count)).round().long()
        # For each line (column or row), the places that its pixels come from.
        lines = (torch.arange(length) - shifts[:, None]) % length
        places = lines if along == -1 else lines.T
        return x.gather(along, places.to(x.device).expand_as(x))


@dataclass(frozen=True)
class Skew(_Skewed):
    """Column c rolls down by d_c pixels, d linear from -max to max, wrapping around.

    Args:
        max_displacement: in pixels of an image 64 high (the course's 50); scales with the height.
        axis: "columns", or "rows" for rows that roll to the right and scale with the width.
    """

    max_displacement: float = 50.0
    axis: Literal["columns", "rows"] = "columns"

    def __post_init__(self) -> None:
        _reach(self.max_displacement, "Skew: max_displacement")
        choice(self.axis, "Skew: axis", _ALONG)

    def shifts(self, length: int, count: int) -> Tensor:
        reach = self.max_displacement * length / REFERENCE_SIZE
        return torch.linspace(-reach, reach, count, dtype=torch.float64).round().long()


@dataclass(frozen=True)
class Shear(_Skewed):
    """Column c of W rolls down by slope * (c - W/2), rounded towards zero, wrapping around.

    The skew of the reference implementation of visual anagrams; a slope needs no scaling.

    Args:
        slope: pixels down per pixel to the right.
        axis: "columns", or "rows" for rows that roll to the right.
    """

    slope: float = 1.5
    axis: Literal["columns", "rows"] = "columns"

    def __post_init__(self) -> None:
        _reach(self.slope, "Shear: slope")
        choice(self.axis, "Shear: axis", _ALONG)

    def shifts(self, length: int, count: int) -> Tensor:
        return (self.slope * (torch.arange(count, dtype=torch.float64) - count / 2)).long()
