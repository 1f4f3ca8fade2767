"""How the aligned images of several views become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from composer_plugins.illusions.decompositions import LaplacianPyramid

Blend = Callable[[Tensor], Tensor]
"""Aligned images of N views (N, B, C, H, W) -> images (B, C, H, W)."""

_PYRAMID = LaplacianPyramid(4)
"""Five levels, as in the paper."""


def mean(aligned: Tensor) -> Tensor:
    return aligned.mean(0)


def pyramid(aligned: Tensor) -> Tensor:
    """On each level of a Laplacian pyramid, half the mean a and half the vector average

        sum_i |a_i| a_i / sum_i |a_i|,

    which keeps details that one view alone has (Chang et al. 2025, arXiv 2504.08902).
    """
    images, total = aligned.flatten(0, 1), torch.zeros_like(aligned[0])
    for part in _PYRAMID.parts:
        level = part(images).unflatten(0, aligned.shape[:2])
        size = level.abs()
        weighted = (size * level).sum(0) / size.sum(0).clamp_min(torch.finfo(level.dtype).tiny)
        total = total + (level.mean(0) + weighted) / 2
    return total


BLENDS: Mapping[str, Blend] = MappingProxyType({"mean": mean, "pyramid": pyramid})
