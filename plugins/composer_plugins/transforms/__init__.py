"""Orthogonal views of an image, for anagrams."""

from composer_plugins.transforms.channels import ChannelPermutation
from composer_plugins.transforms.jigsaw import Jigsaw
from composer_plugins.transforms.negative import DetailNegative, Negative
from composer_plugins.transforms.orthogonal import ColourRotation, Orthogonal
from composer_plugins.transforms.patches import PatchPermute, PixelPermute
from composer_plugins.transforms.permutation import Permutation, PixelPermutation
from composer_plugins.transforms.rotations import (
    Flip,
    Identity,
    Rotate180,
    RotateClockwise,
    RotateCounterclockwise,
)
from composer_plugins.transforms.skew import Roll, Shear, Skew
from composer_plugins.transforms.turned_parts import InnerCircle, SquareHinge

__all__ = [
    "ChannelPermutation",
    "ColourRotation",
    "DetailNegative",
    "Flip",
    "Identity",
    "InnerCircle",
    "Jigsaw",
    "Negative",
    "Orthogonal",
    "PatchPermute",
    "Permutation",
    "PixelPermutation",
    "PixelPermute",
    "Roll",
    "Rotate180",
    "RotateClockwise",
    "RotateCounterclockwise",
    "Shear",
    "Skew",
    "SquareHinge",
]
