"""Linear filters of images, stated at 64 pixels and scaled to any size."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from composer.arguments import positive
from composer.authoring import REFERENCE_SIZE


@dataclass(frozen=True)
class GaussianBlur:
    """Convolution with a Gaussian, edges mirrored; linear, and close to the identity as sigma -> 0.

    A Gaussian is separable, so this is G_H x G_W^T with one matrix per side. At 256 to 1024 pixels
    it takes a tenth of the time of a convolution.

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
        # Mirroring cannot reach beyond the image.
        radius = min(math.ceil(8 * sigma), height - 1, width - 1)
        along_height = _matrix(height, sigma, radius, x.dtype, x.device)
        along_width = _matrix(width, sigma, radius, x.dtype, x.device)
        return along_height @ x @ along_width.mT


@functools.lru_cache(maxsize=16)  # of 4 MB each at 1024 pixels in float32
def _matrix(
    side: int, sigma: float, radius: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The blur of a line of pixels: row i holds the weights of output pixel i, mirrored at the
    ends.

    Made in float64 on the CPU, once per size, and outside of the caller's inference mode, so that
    other callers can use it too.
    """
    with torch.inference_mode(False), torch.device("cpu"):
        reach = torch.arange(-radius, radius + 1)
        weights = torch.exp(-0.5 * (reach.double() / sigma) ** 2)
        last = side - 1
        mirrored = last - (last - (torch.arange(side)[:, None] + reach).abs()).abs()
        lines = torch.zeros(side, side, dtype=torch.float64)
        lines.scatter_add_(1, mirrored, (weights / weights.sum()).expand(side, -1))
        return lines.to(dtype).to(device)
