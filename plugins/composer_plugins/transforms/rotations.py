"""The symmetries of a rectangle: identity, flips and quarter turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from composer import Transform
from composer.arguments import choice

_AXES = {"vertical": -2, "horizontal": -1}


@dataclass(frozen=True)
class Identity(Transform):
    """The image itself; returns x, not a copy, so that its requests are recognised as equal."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Flip(Transform):
    """Upside down (axis "vertical") or mirrored left to right ("horizontal")."""

    axis: Literal["vertical", "horizontal"] = "vertical"

    def __post_init__(self) -> None:
        choice(self.axis, "Flip: axis", _AXES)

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(_AXES[self.axis])

    def inverse(self, x: Tensor) -> Tensor:
        return self(x)


@dataclass(frozen=True)
class Rotate180(Transform):
    """A half turn."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip(-2, -1)

    def inverse(self, x: Tensor) -> Tensor:
        return self(x)


@dataclass(frozen=True)
class RotateClockwise(Transform):
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


@dataclass(frozen=True)
class RotateCounterclockwise(Transform):
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
