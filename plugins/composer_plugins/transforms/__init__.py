"""Orthogonal views of an image, for anagrams."""

from composer_plugins.transforms.negative import Negative
from composer_plugins.transforms.rotations import (
    Flip,
    Identity,
    Rotate180,
    RotateClockwise,
    RotateCounterclockwise,
)
from composer_plugins.transforms.skew import Skew

__all__ = [
    "Flip",
    "Identity",
    "Negative",
    "Rotate180",
    "RotateClockwise",
    "RotateCounterclockwise",
    "Skew",
]
