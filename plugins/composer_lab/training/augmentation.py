"""Changes of training digits (B, 1, 28, 28) in [-1, 1] that leave their class."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def uniform(count: int, low: float, high: float) -> Tensor:
    """(count,) numbers in [low, high)."""
    return low + (high - low) * torch.rand(count)


def warped(x: Tensor, grid: Tensor) -> Tensor:
    """Read ``x`` at a grid (B, 28, 28, 2) in [-1, 1]; outside is background, -1."""
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def affine(x: Tensor, degrees: float, scale: float, shear: float, shift: float) -> Tensor:
    """Turn by up to ``degrees``, scale by exp(+-``scale``), shear, and shift by pixels."""
    count = len(x)
    angle = uniform(count, -1, 1) * math.radians(degrees)
    wide, high = (uniform(count, -scale, scale).exp() for _ in range(2))
    sheared = uniform(count, -shear, shear)
    cos, sin = angle.cos(), angle.sin()
    across, down = (uniform(count, -shift, shift) / 14 for _ in range(2))
    rows = torch.stack(
        [
            torch.stack([wide * cos, sheared - high * sin, across], 1),
            torch.stack([wide * sin, high * cos, down], 1),
        ],
        1,
    )
    return warped(x, F.affine_grid(rows, list(x.shape), align_corners=False))


def elastic(x: Tensor, pixels: float, points: int = 5) -> Tensor:
    """Bend by a smooth field of displacements, of standard deviation ``pixels`` at its points.

    Simard et al. 2003, "Best Practices for Convolutional Neural Networks".
    """
    coarse = torch.randn(len(x), 2, points, points) * pixels / 14
    field = F.interpolate(coarse, x.shape[-2:], mode="bicubic", align_corners=True)
    same = torch.eye(2, 3).expand(len(x), 2, 3)
    grid = F.affine_grid(same, list(x.shape), align_corners=False)
    return warped(x, grid + field.permute(0, 2, 3, 1))


def erased(x: Tensor, most: int) -> Tensor:
    """Erase a rectangle of up to ``most`` pixels a side.

    Zhong et al. 2017, "Random Erasing Data Augmentation", arXiv 1708.04896.
    """
    top, left, height, width = (
        torch.randint(0, limit, (len(x), 1, 1)) for limit in (28, 28, most + 1, most + 1)
    )
    down, across = torch.arange(28)[None, :, None], torch.arange(28)[None, None, :]
    inside = (down >= top) & (down < top + height) & (across >= left) & (across < left + width)
    return x.masked_fill(inside[:, None], -1.0)
