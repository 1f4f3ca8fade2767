"""The probe of decompositions: linear parts of an image that sum to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from composer.transforms import TOLERANCE, not_by_image, not_linear, not_pure, probes


def check_parts(
    parts: Sequence[Callable[[Tensor], Tensor]], shape: tuple[int, int, int], owner: str
) -> None:
    """Refuse filters that do not sum to the identity on images of ``shape`` (C, H, W)."""
    if not all(callable(part) for part in parts):
        raise TypeError(f"{owner}: parts must be functions of an image, got {parts!r}")
    x, y = probes(shape)
    for part in parts:
        _tried(part, x, owner)
    gap = (sum((part(x) for part in parts), torch.zeros_like(x)) - x).abs().max().item()
    if not gap < TOLERANCE:
        raise ValueError(
            f"{owner}: the parts do not sum to the identity (off by {gap:.2g}); make the last "
            "part the rest, x minus the others"
        )
    for part in parts:
        if trouble := not_linear(part, x, y) or not_by_image(part, x) or not_pure(part, x):
            raise ValueError(
                f"{owner}: {part!r} is not linear ({trouble}); use a linear filter of one image"
            )


def _tried(part: Callable[[Tensor], Tensor], x: Tensor, owner: str) -> None:
    """Refuse a filter that breaks on an image, or that returns something else."""
    try:
        seen: object = part(x.clone())
    except Exception as error:  # whatever it raises is its owner's to mend
        raise ValueError(
            f"{owner}: {part!r:.80} fails on images of {tuple(x.shape[1:])} "
            f"({type(error).__name__}: {error}); use a filter of any image (B, C, H, W)"
        ) from error
    if not isinstance(seen, Tensor) or seen.shape != x.shape:
        what = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
        raise ValueError(
            f"{owner}: {part!r:.80} makes {what} of an image {tuple(x.shape)}; a filter keeps the "
            "shape"
        )
