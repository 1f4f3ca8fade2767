"""The symmetries of a rectangle: identity, flips and quarter turns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from composer import Transform
from composer.arguments import choice
from composer_plugins.transforms.motion import Moving, moved, turn

_AXES = {"vertical": -2, "horizontal": -1}


@dataclass(frozen=True)
class Identity(Transform):
    """The image itself. Returns x and no copy, so that the loop finds equal requests."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Flip(Moving):
    """Upside down (axis "vertical") or mirrored left to right ("horizontal")."""

    axis: Literal["vertical", "horizontal"] = "vertical"

    def __post_init__(self) -> None:
        choice(self.axis, "Flip: axis", _AXES)

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(_AXES[self.axis])

    def inverse(self, x: Tensor) -> Tensor:
        return self(x)

    def between(self, x: Tensor, u: float) -> Tensor:
        """A card turned over: it narrows, stands on edge half-way, and widens again mirrored."""
        back = torch.eye(2, dtype=torch.float64)
        # On edge, at cos = 0, a tiny width avoids a division by 0.
        back[_AXES[self.axis], _AXES[self.axis]] /= math.cos(math.pi * u) or 1e-9
        return moved(x, back)


@dataclass(frozen=True)
class Rotate180(Moving):
    """A half turn."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(-2, -1)

    def inverse(self, x: Tensor) -> Tensor:
        return self(x)

    def between(self, x: Tensor, u: float) -> Tensor:
        """The image turns clockwise."""
        return moved(x, turn(180 * u))


@dataclass(frozen=True)
class RotateClockwise(Moving):
    """A quarter turn clockwise; square images."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.rot90(x, -1, (-2, -1))

    def inverse(self, x: Tensor) -> Tensor:
        return torch.rot90(x, 1, (-2, -1))

    def accepts(self, height: int, width: int) -> bool:
        return height == width > 0

    @property
    def sizes(self) -> str:
        return "square images"

    def between(self, x: Tensor, u: float) -> Tensor:
        """The image turns clockwise."""
        return moved(x, turn(90 * u))


@dataclass(frozen=True)
class RotateCounterclockwise(Moving):
    """A quarter turn counterclockwise; square images."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.rot90(x, 1, (-2, -1))

    def inverse(self, x: Tensor) -> Tensor:
        return torch.rot90(x, -1, (-2, -1))

    def accepts(self, height: int, width: int) -> bool:
        return height == width > 0

    @property
    def sizes(self) -> str:
        return "square images"

    def between(self, x: Tensor, u: float) -> Tensor:
        """The image turns counterclockwise."""
        return moved(x, turn(-90 * u))
