"""Decompositions: linear parts of an image that sum to the image, for hybrids and the like.

Lengths are given in pixels of an image 64 high; all work from 28 to 1024 pixels. The network sees
the whole x, and its prediction is split into parts (Geng, Park & Owens 2024, "Factorized
Diffusion", arXiv 2404.11615).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from composer.arguments import choice, finite, finite_list, integer, positive, sequence
from composer.authoring import REFERENCE_SIZE, Part
from composer.images import ImageLike, hold_mask, to_mask
from composer.limits import MAX_BANDS
from composer_plugins.filters import GaussianBlur

Padding = Literal["zeros", "reflect"]
_PADDINGS = {"zeros": "constant", "reflect": "reflect"}
"""{padding: torch's name for it}."""
MAX_DEPTH = 10
"""Octaves; ten span a thousand pixels."""


@dataclass(frozen=True)
class Bands:
    """Frequency bands, the coarsest first, by Gaussian blurs in cascade.

    With G_1 ... G_n from fine to coarse and g_k = G_k ... G_1 x (g_0 = x), the parts are
    g_n, g_{n-1} - g_n, ..., x - g_1. One sigma makes a hybrid's low and high, two make a triple.

    Args:
        sigmas: of G_1 ... G_n, 1 to 16 of them, in pixels of an image 64 high.
    """

    sigmas: Sequence[float] = (2.0,)

    def __post_init__(self) -> None:
        count = len(finite_list(self.sigmas, "Bands: sigmas"))
        if not 1 <= count <= MAX_BANDS:
            raise ValueError(f"Bands: sigmas must be 1 to {MAX_BANDS} numbers, got {count}.")
        for sigma in self.sigmas:
            positive(sigma, "Bands: sigmas")

    @property
    def parts(self) -> tuple[Part, ...]:
        blurs = [GaussianBlur(sigma) for sigma in self.sigmas]

        def smooth(x: Tensor, level: int) -> Tensor:
            for blur in blurs[:level]:
                x = blur(x)
            return x

        def band(x: Tensor, level: int) -> Tensor:
            finer = smooth(x, level)
            return finer - blurs[level](finer)

        levels = reversed(range(len(blurs)))
        return (partial(smooth, level=len(blurs)), *(partial(band, level=k) for k in levels))


@dataclass(frozen=True)
class LaplacianPyramid:
    """``depth`` octaves of detail above a coarse rest, the coarsest first, at full resolution.

    Burt & Adelson 1983, "The Laplacian Pyramid as a Compact Image Code"; level k is blurred to
    sigma * 2^k in all, without down-sampling, which would fold high frequencies into low ones.

    Args:
        depth: number of differences, at least 1; there are depth + 1 parts.
        sigma: of the finest blur, in pixels of an image 64 high.
    """

    depth: int = 3
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if integer(self.depth, "LaplacianPyramid: depth", least=1) > MAX_DEPTH:
            raise ValueError(
                f"LaplacianPyramid: depth must be at most {MAX_DEPTH}, got {self.depth}."
            )
        positive(self.sigma, "LaplacianPyramid: sigma")

    @property
    def parts(self) -> tuple[Part, ...]:
        # Variances of blurs in cascade add: from 2^(k-1) sigma to 2^k sigma it takes this much.
        steps = (2 ** (k - 1) * math.sqrt(3) * self.sigma for k in range(1, self.depth))
        return Bands((self.sigma, *steps)).parts


@dataclass(frozen=True)
class GrayColour:
    """The mean of the channels, and what colour adds to it."""

    @property
    def parts(self) -> tuple[Part, ...]:
        def gray(x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True).expand_as(x)

        return gray, partial(_rest, part=gray)


@dataclass(frozen=True)
class MotionBlur:
    """The mean of x along a diagonal, as a motion smears it, and x minus that mean.

    As in the authors' code of "Factorized Diffusion": 7 taps at 64 pixels, 29 at 256, and zeros
    beyond the border.

    Args:
        taps: length of the motion in pixels of an image 64 high, at least 2; scales with the image,
            to the next odd number, so that the picture does not shift.
        padding: values beyond the border: "zeros", or "reflect" for the mirrored image.
    """

    taps: int = 7
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        integer(self.taps, "MotionBlur: taps", least=2)
        choice(self.padding, "MotionBlur: padding", _PADDINGS)

    @property
    def parts(self) -> tuple[Part, ...]:
        return self._blur, partial(_rest, part=self._blur)

    def _blur(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        reach = max(1, self.taps * height // (2 * REFERENCE_SIZE))
        reach = min(reach, height - 1, width - 1)  # mirroring cannot reach beyond the image
        padded, taps = F.pad(x, (reach,) * 4, mode=_PADDINGS[self.padding]), 2 * reach + 1
        moved = (padded[..., k : k + height, k : k + width] for k in range(taps))
        return cast(Tensor, sum(moved)) / taps


@dataclass(frozen=True, eq=False)
class Masks:
    """Regions: part i is m_i * x, with masks that sum to one at every pixel.

    Args:
        masks: tensors (H, W) in [0, 1], or paths, PIL images or arrays of grey pixels, white = 1;
            resized to the image by averaging, which keeps their sum.
    """

    masks: Sequence[ImageLike]

    def __post_init__(self) -> None:
        held = [hold_mask(mask, "Masks: mask") for mask in sequence(self.masks, "Masks: masks")]
        object.__setattr__(self, "masks", tuple(held))
        masks = [to_mask(mask) for mask in held]
        if not masks or any(mask.shape != masks[0].shape for mask in masks):
            raise ValueError("Masks: masks must be at least one, all of one size.")
        if (gap := (torch.stack(masks).sum(0) - 1).abs().max().item()) > 1e-6:
            raise ValueError(
                f"Masks: masks must sum to one everywhere, got sums off by {gap:.2g}. Make "
                "the last mask 1 minus the others."
            )

    @cached_property
    def _stack(self) -> Tensor:
        """(N, 1, H, W) in float64, corrected to sum to one exactly."""
        stack = torch.stack([to_mask(mask) for mask in self.masks])[:, None].double()
        return stack / stack.sum(0)

    @property
    def parts(self) -> tuple[Part, ...]:
        stack = self._stack

        def region(x: Tensor, index: int) -> Tensor:
            mask = stack[index : index + 1]
            height, width = x.shape[-2:]
            if mask.shape[-2] * width != mask.shape[-1] * height:
                raise ValueError(
                    f"Masks: masks must have the proportions of {height}x{width}, got "
                    f"{mask.shape[-2]}x{mask.shape[-1]}."
                )
            if mask.shape[-2:] != x.shape[-2:]:
                mask = F.adaptive_avg_pool2d(mask, (x.shape[-2], x.shape[-1]))
            return x * mask.to(x)

        return tuple(partial(region, index=i) for i in range(len(stack)))


@dataclass(frozen=True)
class Scales:
    """Shares of the whole image: part i is a_i * x.

    Args:
        shares: numbers a_i that sum to one.
    """

    shares: Sequence[float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        shares = finite_list(self.shares, "Scales: shares")
        if not math.isclose(sum(shares), 1.0):
            raise ValueError(f"Scales: shares must sum to 1, got {shares}.")

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(partial(torch.mul, other=finite(a, "Scales: shares")) for a in self.shares)


def _rest(x: Tensor, part: Part) -> Tensor:
    return x - part(x)
