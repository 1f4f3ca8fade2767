"""Linear filters of images, stated at 64 pixels and scaled to any size."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from composer.arguments import positive
from composer.authoring import REFERENCE_SIZE


@dataclass(frozen=True)
class GaussianBlur:
    """Convolution with a Gaussian, edges mirrored; linear, and close to the identity as sigma -> 0.

    Args:
        sigma: standard deviation in pixels of an image 64 high; at height H it is sigma * H / 64,
            with a kernel of 8 standard deviations either side (33 taps for sigma 2 at 64).
    """

    sigma: float

    def __post_init__(self) -> None:
        positive(self.sigma, "sigma")

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, blurred."""
        *_, height, width = x.shape
        sigma = self.sigma * height / REFERENCE_SIZE
        # Mirroring cannot reach further than the image.
        radius = min(math.ceil(8 * sigma), height - 1, width - 1)
        kernel = _kernel(sigma, radius).to(x)
        channels = x.shape[1]
        padded = F.pad(x, (radius,) * 4, mode="reflect")
        rows = kernel[None, None, :, None].expand(channels, 1, -1, 1)
        columns = kernel[None, None, None, :].expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)


@functools.lru_cache(maxsize=64)
def _kernel(sigma: float, radius: int) -> Tensor:
    places = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (places / sigma) ** 2)
    return weights / weights.sum()
