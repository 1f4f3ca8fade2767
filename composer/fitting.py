"""Pictures at another size: cut, padded or stretched, and resampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from composer.arguments import choice

Size = tuple[int, int]
"""(height, width)."""
Fit = Literal["crop", "pad", "stretch"]
"""How to resize a picture: crop its middle, add bars, or distort it."""
_Resample = Callable[[Tensor, Size], Tensor]


def check_fit(fit: Fit | None, owner: str) -> None:
    if fit is not None:
        choice(fit, f"{owner}: fit", _FITS)


def fit_image(x: Tensor, size: Size, fit: Fit, white: float = 1.0) -> Tensor:
    """Images (B, C, h, w) as (B, C, height, width), resampled bicubically; bars are white.

    Args:
        x: of floating point, or uint8.
    """
    return _FITS[fit](x, size, _bicubic, white)


def fit_mask(mask: Tensor, size: Size, fit: Fit) -> Tensor:
    """A mask (h, w) as (height, width), cut and padded like its image; bars are 0, known.

    Each pixel is the mean of those it covers: exactly 0 where all were 0, 1 where all were 1.
    """
    return _FITS[fit](mask[None, None], size, _covered, 0.0)[0, 0]


def proportional(size: Size, proportions: Size) -> Size:
    """The largest (height, width) within ``size`` that has the proportions, up to rounding."""
    height, width = size
    rows, columns = proportions
    if width * rows > height * columns:
        return height, max(1, round(height * columns / rows))
    return max(1, round(width * rows / columns)), width


def alike(size: Size, other: Size) -> bool:
    """Whether two sizes have the same proportions, up to the rounding of a side to a pixel."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(other)


def _bicubic(x: Tensor, size: Size) -> Tensor:
    """Images at another size, antialiased where they shrink, clipped to [-1, 1] or 0 to 255."""
    if x.shape[-2:] == size:
        return x
    if x.dtype == torch.uint8:
        return F.interpolate(x, size, mode="bicubic", antialias=True)  # rounded as PIL does
    # In float32: CPUs have no kernel for half precision.
    numbers = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    limit = numbers.abs().amax((1, 2, 3), keepdim=True).clamp(min=1.0)
    made = F.interpolate(numbers, size, mode="bicubic", antialias=True)
    return made.clamp(-limit, limit).to(x.dtype)


def _covered(x: Tensor, size: Size) -> Tensor:
    """Images at another size, where each pixel is the mean of those it covers."""
    return F.interpolate(x, size, mode="area")


def _crop(x: Tensor, size: Size, resample: _Resample, blank: float) -> Tensor:
    height, width = x.shape[-2:]
    rows, columns = proportional((height, width), size)
    top, left = (height - rows) // 2, (width - columns) // 2
    return resample(x[..., top : top + rows, left : left + columns], size)


def _pad(x: Tensor, size: Size, resample: _Resample, blank: float) -> Tensor:
    rows, columns = proportional(size, (x.shape[-2], x.shape[-1]))
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    bars = left, size[1] - columns - left, top, size[0] - rows - top
    return F.pad(resample(x, (rows, columns)), bars, value=blank)


def _stretch(x: Tensor, size: Size, resample: _Resample, blank: float) -> Tensor:
    return resample(x, size)


_FITS: dict[str, Callable[[Tensor, Size, _Resample, float], Tensor]] = {
    "crop": _crop,
    "pad": _pad,
    "stretch": _stretch,
}
