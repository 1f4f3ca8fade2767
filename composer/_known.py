"""The part of an image that inpainting keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from composer.images import Fit, ImageLike, read_mask, read_picture
from composer.protocols import State


@dataclass(frozen=True, eq=False)
class KnownRegion:
    """An image and a mask for the length of a run, where and in what the run is.

    Attributes:
        given: (1, C, H, W), or one a seed.
        mask: (H, W) in [0, 1], 1 = repaint.
        owner: whose it is, for messages.
    """

    given: Tensor
    mask: Tensor
    owner: str

    @classmethod
    def of(
        cls, state: State, image: ImageLike, mask: ImageLike, fit: Fit | None, owner: str
    ) -> KnownRegion:
        shape = state.backend.shape
        given = read_picture(image, shape, fit, f"{owner}: image")
        chosen = read_mask(mask, shape[1:], fit, f"{owner}: mask")
        return cls(given.to(state.x), chosen.to(state.x), owner)

    def image(self, state: State) -> Tensor:
        """The image of each of the run's images: (1, C, H, W) or (B, C, H, W)."""
        return state.each(self.given, self.owner)

    def blended(self, unknown: Tensor, known: Tensor) -> Tensor:
        return self.mask * unknown + (1 - self.mask) * known

    def restored(self, state: State) -> Tensor:
        """x, exact where nothing was to be repainted, also where a run was stopped in noise."""
        return torch.where(self.mask == 0, self.image(state), state.x)
