"""One-step denoising: its requests, and the estimates of images noised to different times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from composer.protocols import Backend
from composer.requests import Estimate, Request
from composer.words import short_repr


@dataclass(frozen=True, eq=False, repr=False)
class Denoised:
    """Estimates at (x, t), with one time per image.

    Attributes:
        prediction: the model's output (B, C, H, W), combined by the plugins.
        variance: the learned variance (B, C, H, W) in [-1, 1], or None.
        x: the noised images (B, C, H, W).
        t: their times (B,), float64.
        x0: the clean images (B, C, H, W) that the predictions imply.
        noise: the noise (B, C, H, W) in x that the predictions imply.
    """

    prediction: Tensor
    variance: Tensor | None
    x: Tensor
    t: Tensor
    x0: Tensor
    noise: Tensor

    __repr__ = short_repr

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> Denoised:
        """Concatenate estimates of one or more images each."""
        variances = [e.variance for e in estimates if e.variance is not None]
        times = [e.t for e in estimates for _ in e.x]
        return cls(
            torch.cat([e.prediction for e in estimates]),
            torch.cat(variances) if variances else None,
            torch.cat([e.x for e in estimates]),
            torch.tensor(times, dtype=torch.float64),
            torch.cat([e.x0 for e in estimates]),
            torch.cat([e.noise for e in estimates]),
        )


def requests_at(
    x: Tensor,
    times: float | Sequence[float],
    condition: Any,
    seeds: tuple[int, ...],
    backend: Backend,
) -> list[Request]:
    """One request of all images x (B, C, H, W) at their time, or one per image at its own.

    Args:
        seeds: for each image the number of its seed.
    """
    at = partial(Request, condition=condition, schedule=backend.schedule, backend=backend)
    if not isinstance(times, Sequence):
        return [at(x, times, origin=seeds)]
    images = zip(x.split(1), times, seeds, strict=True)
    return [at(image, t, origin=(seed,)) for image, t, seed in images]
