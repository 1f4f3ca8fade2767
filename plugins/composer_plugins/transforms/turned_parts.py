"""Parts of the image turn, the rest stays: a disc, or the tiles of a hinged square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from composer.arguments import positive
from composer.authoring import REFERENCE_SIZE
from composer_plugins.transforms.motion import ground, moved, paste, turn
from composer_plugins.transforms.permutation import PixelPermutation

TILES = 3


@dataclass(frozen=True)
class InnerCircle(PixelPermutation):
    """A half turn of the disc in the middle.

    Args:
        radius: in pixels of an image 64 wide; scales with the shorter side.
    """

    radius: float = 24.0

    def __post_init__(self) -> None:
        positive(self.radius, "InnerCircle: radius")

    def order(self, height: int, width: int) -> Tensor:
        pixels = torch.arange(height * width)
        # A half turn of all H*W pixels counts them backwards.
        return torch.where(self._inside(height, width).flatten(), pixels.flip(0), pixels)

    def between(self, x: Tensor, u: float) -> Tensor:
        """The disc turns."""
        inside = self._inside(*x.shape[-2:]).to(x.device)
        return torch.where(inside, moved(x, turn(180 * u)), x)

    def _inside(self, height: int, width: int) -> Tensor:
        """(H, W) bool: whether the middle of a pixel lies in the disc."""
        rows = (torch.arange(height) - (height - 1) / 2)[:, None]
        columns = torch.arange(width) - (width - 1) / 2
        return rows**2 + columns**2 < (self.radius * min(height, width) / REFERENCE_SIZE) ** 2


@dataclass(frozen=True)
class SquareHinge(PixelPermutation):
    """Nine square tiles, each turned by a quarter, neighbours in opposite senses.

    Tiles hinged at their corners move together in this way. Where three tiles do not fill the side,
    the remaining pixels at the right and the bottom stay.
    """

    def order(self, height: int, width: int) -> Tensor:
        order = torch.arange(height * width).reshape(height, width)
        for rows, columns, sense in _tiles(height):
            order[rows, columns] = order[rows, columns].rot90(-sense)
        return order.flatten()

    def accepts(self, height: int, width: int) -> bool:
        return height == width >= TILES

    @property
    def sizes(self) -> str:
        return f"square images of {TILES} pixels a side or more"

    def between(self, x: Tensor, u: float) -> Tensor:
        """The tiles turn about their middles, from far enough away to keep all of them in view."""
        angle = math.radians(90 * u)
        zoom = 1 / (math.sin(angle) + math.cos(angle))
        canvas, background = x.clone(), ground(x)
        tiles = _tiles(x.shape[-1])
        for rows, columns, _ in tiles:
            canvas[..., rows, columns] = background[..., rows, columns]
        for rows, columns, sense in tiles:
            mask = torch.zeros(x.shape[-2:], dtype=torch.bool)
            mask[rows, columns] = True
            middle = (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
            paste(canvas, x, mask, middle, middle, turn(90 * u * sense, zoom))
        return canvas


def _tiles(size: int) -> list[tuple[slice, slice, int]]:
    """Rows, columns and quarter turns clockwise (1 or -1) of each tile."""
    side = size // TILES
    spans = [slice(i * side, (i + 1) * side) for i in range(TILES)]
    return [
        (rows, columns, 1 - 2 * ((i + j) % 2))
        for i, rows in enumerate(spans)
        for j, columns in enumerate(spans)
    ]
