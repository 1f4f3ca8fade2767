"""Training data: pictures, labels and places on the path, as functions of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from composer.authoring import generator_of


class DataSource(Protocol):
    """A source of the batches of a training."""

    def __len__(self) -> int:
        """Pictures per epoch."""
        ...

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """The pictures of one step, uint8 (size, C, H, W), and their labels, int64 (size,).

        A source of latents gives x_0 itself, in floating point.
        """
        ...


def as_x0(pictures: Tensor) -> Tensor:
    """uint8 pictures as x_0 in [-1, 1]; what is in floating point is x_0 already."""
    return pictures if pictures.is_floating_point() else pictures.float() / 127.5 - 1


@dataclass(frozen=True, eq=False)
class FixedImages:
    """A set of images, each used at most once per epoch, in a new random order per epoch.

    Images at the end that do not fill a batch are left out of that epoch.

    Args:
        images: uint8 (N, H, W) or (N, C, H, W), or x_0 in floating point.
        labels: int64 (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, len(self) // size)
        order = torch.randperm(len(self), generator=generator_of(seed, 2**32 + epoch))
        chosen = order[place * size : (place + 1) * size]
        images = self.images[chosen]
        return images if images.ndim == 4 else images[:, None], self.labels[chosen]


def stratified(
    count: int, generator: torch.Generator, logit_normal: tuple[float, float] | None = None
) -> Tensor:
    """(count,) places in [0, 1], one from each of ``count`` equally likely parts."""
    draws = torch.rand(count, generator=generator, dtype=torch.float64)
    places = (torch.arange(count) + draws) / count
    if logit_normal is None:
        return places
    mean, spread = logit_normal
    # A draw of exactly 0 has the quantile 0 too: sigmoid(-inf).
    return torch.sigmoid(mean + spread * torch.special.ndtri(places))
