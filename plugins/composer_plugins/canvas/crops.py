"""Overlapping crops of a canvas, and windows that sum to one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

Window = Literal["flat", "smooth"]
WINDOWS = ("flat", "smooth")


@dataclass(frozen=True, eq=False)
class Crop:
    """One crop V of a canvas, and the window of its answer.

    Attributes:
        rows, columns: the rows (h,) and columns (w,) of the canvas that it shows; on a canvas that
            wraps they continue at the other side.
        window: (h, w); the windows of all crops sum to one at each place of the canvas.
    """

    rows: Tensor
    columns: Tensor
    window: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The crop for canvases on a device."""
        window = self.window.to(dtype).to(device)
        return type(self)(self.rows.to(device), self.columns.to(device), window)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., H, W) -> (..., h, w)."""
        return x[..., self.rows[:, None], self.columns]

    def add_to(self, canvas: Tensor, answer: Tensor) -> None:
        """Add an answer (..., h, w) into a canvas (..., H, W) in its place."""
        canvas[..., self.rows[:, None], self.columns] += answer


def crops(
    canvas: tuple[int, int],
    crop: tuple[int, int],
    overlap: float,
    wraps: tuple[bool, bool],
    window: Window,
) -> list[Crop]:
    """The crops that cover a canvas, evenly, from the top left on; on the CPU, in float64.

    Args:
        canvas, crop: (H, W) and (h, w), h <= H, w <= W.
        overlap: least share of a crop's side that it has in common with the next one, in [0, 1).
        wraps: whether rows, and columns, continue at the other side.
        window: the weight of an answer within its crop, before normalisation: the same everywhere,
            or falling towards the crop's border as sin^2.
    """
    axes = []
    for side, length, around in zip(canvas, crop, wraps, strict=True):
        places = [
            torch.arange(start, start + length) % side
            for start in starts(side, length, around, overlap)
        ]
        total = torch.zeros(side, dtype=torch.float64)
        shape = profile(length, window)
        for place in places:
            total[place] += shape
        axes.append([(place, shape / total[place]) for place in places])
    down, across = axes
    return [
        Crop(rows, columns, tall[:, None] * wide) for rows, tall in down for columns, wide in across
    ]


def starts(side: int, length: int, around: bool, overlap: float) -> list[int]:
    """The first place of each crop along one side, evenly spaced."""
    stride = max(1, math.floor(length * (1 - overlap)))
    if around:
        count = max(2, math.ceil(side / stride))  # one would show its own seam
        return [round(k * side / count) for k in range(count)]
    steps = math.ceil((side - length) / stride)
    return [round(k * (side - length) / max(1, steps)) for k in range(steps + 1)]


def profile(length: int, window: Window) -> Tensor:
    """The window along one side of a crop, above zero everywhere."""
    if window == "flat":
        return torch.ones(length, dtype=torch.float64)
    middles = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return torch.sin(math.pi * middles).square()
