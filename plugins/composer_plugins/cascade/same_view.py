"""Whether a view is the same at two sizes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from composer import Transform
from composer.authoring import once

ALIKE = 0.5
"""Correlation of two views' pictures above which they count as one view. A skew, rounded to
pixels, reaches at least .9; different permutations reach about 0."""
BLOBS = 8
"""Size of the test picture in pixels per side."""


def check_same_view(
    view: Transform, shape: tuple[int, ...], larger: Transform, larger_shape: tuple[int, ...]
) -> None:
    """Raise a ValueError if a view is a different one on larger images, because the next stage
    would see a shuffled image.

    Args:
        view, larger: at the two sizes.
        shape, larger_shape: (C, H, W).
    """
    alike = once(
        partial(_likeness, view, shape, larger, larger_shape),
        *("same view", view, shape, larger, larger_shape),
    )
    if not alike >= ALIKE:
        height, width = larger_shape[1:]
        raise ValueError(
            f"{larger!r} must be the same view at {height}x{width} as at {shape[1]}x{shape[2]}. "
            "Choose parameters that fit both sizes, such as a grid that divides both."
        )


def _likeness(
    view: Transform, shape: tuple[int, ...], larger: Transform, larger_shape: tuple[int, ...]
) -> float:
    """The correlation of a smooth random picture's view with the picture enlarged, viewed and
    shrunk again."""
    picture = _smooth(shape)
    enlarged = F.interpolate(picture, larger_shape[1:], mode="nearest")
    shrunk = F.interpolate(larger(enlarged), shape[1:], mode="area")
    return F.cosine_similarity(view(picture).flatten(), shrunk.flatten(), dim=0).item()


def _smooth(shape: tuple[int, ...]) -> Tensor:
    """A picture (1, C, H, W) of blobs of random colours."""
    generator = torch.Generator().manual_seed(0)
    blobs = torch.randn(1, shape[0], BLOBS, BLOBS, generator=generator)
    return F.interpolate(blobs, shape[1:], mode="bilinear", align_corners=False)
