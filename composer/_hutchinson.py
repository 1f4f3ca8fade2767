"""The divergence of a field of images, by the field at images near by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Hutchinson:
    """The divergence of a field v(x) of images: the mean of e^T (dv / dx) e over directions e.

    A central difference gives each product, so any field will do: a network that has no gradient,
    and whatever plugins make of it. With random signs this is Hutchinson's estimator, without bias
    but for the rounding of a network that computes in less than the dtype of x; with all unit
    vectors it is the trace.

    Args:
        directions: e (P, B, C, H, W), or one for all images (P, 1, C, H, W), whose squares sum to
            1 over P for each pixel.
    """

    directions: Tensor

    @classmethod
    def random(cls, noise: Sequence[Tensor]) -> Self:
        """The signs of P draws of noise (B, C, H, W)."""
        return cls(torch.stack([one.sign() for one in noise]) / math.sqrt(len(noise)))

    @classmethod
    def exact(cls, x: Tensor) -> Self:
        """One direction for each pixel of images like x (B, C, H, W)."""
        size = x[0].numel()
        units = torch.eye(size, dtype=x.dtype, device=x.device)
        return cls(units.reshape(size, 1, *x.shape[1:]))

    @property
    def offsets(self) -> Tensor:
        """Where to evaluate the field beside x: (2P, B, C, H, W), to be added to it."""
        ahead = self._small * self.directions / self._longest
        return torch.cat([ahead, -ahead])

    def divergence(self, values: Tensor) -> Tensor:
        """(B,), or (B, N) of N fields.

        Args:
            values: of the field at x + offsets, (2P, B, C, H, W), or (2P, B, N, C, H, W).
        """
        ahead, behind = values.chunk(2)
        e = self.directions if values.ndim == self.directions.ndim else self.directions[:, :, None]
        change = (ahead - behind) / (2 * self._small / self._longest)
        return (change * e).sum(0).sum((-3, -2, -1))

    @property
    def _small(self) -> float:
        """Balances rounding and truncation."""
        return float(torch.finfo(self.directions.dtype).eps ** (1 / 3))

    @property
    def _longest(self) -> Tensor:
        return self.directions.abs().amax()
