"""Patches and pixels in a random order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from composer.arguments import integer
from composer_plugins.transforms.permutation import PixelPermutation, checked_seed, divisor, seeded


@dataclass(frozen=True)
class PatchPermute(PixelPermutation):
    """A grid of patches in a random order, the same at all sizes that have as many patches.

    Args:
        grid: largest number of patches along each side. Where it does not divide the side, the view
            takes the largest smaller number that does (7 at 28 pixels, 8 at 64, 256 and 1024).
        seed: of the order.
    """

    grid: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "grid", integer(self.grid, f"{name}: grid", least=2))
        object.__setattr__(self, "seed", checked_seed(self.seed, f"{name}: seed"))

    def order(self, height: int, width: int) -> Tensor:
        down, across = divisor(height, self.grid), divisor(width, self.grid)
        pixels = torch.arange(height * width).reshape(down, height // down, across, -1)
        patches = pixels.transpose(1, 2).flatten(0, 1)
        shuffled = patches[torch.randperm(len(patches), generator=seeded(self.seed))]
        return shuffled.reshape(down, across, height // down, -1).transpose(1, 2).flatten()

    def accepts(self, height: int, width: int) -> bool:
        return all(side > 0 and divisor(side, self.grid) > 1 for side in (height, width))

    @property
    def sizes(self) -> str:
        return f"sides divisible by a number from 2 to {self.grid}"


@dataclass(frozen=True)
class PixelPermute(PatchPermute):
    """Single pixels in a random order; square blocks in images above 64 pixels per side.

    Args:
        grid: largest number of blocks along each side, as in :class:`PatchPermute`.
        seed: of the order.
    """

    grid: int = 64
