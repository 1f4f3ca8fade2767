"""The part of an image that inpainting keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from composer.images import Fit, ImageLike, read_mask, read_picture
from composer.latents import image_shape_of, to_latents
from composer.protocols import State


@dataclass(frozen=True, eq=False)
class KnownRegion:
    """An image and a mask for the length of a run, where and in what the run is.

    A latent model is shown the latents of the image, and the mask reduced to their grid: the value
    of the nearest pixel, as in the pipelines of diffusers.

    Attributes:
        pixels: (1, C, H, W), or one a seed.
        whole: the mask (H, W) in [0, 1] of the pixels, 1 = repaint.
        given: what the loop has for ``pixels``: these, or their latents.
        mask: ``whole`` on the grid of ``given``.
        owner: whose it is, for messages.
    """

    pixels: Tensor
    whole: Tensor
    given: Tensor
    mask: Tensor
    owner: str

    @classmethod
    def of(
        cls, state: State, image: ImageLike, mask: ImageLike, fit: Fit | None, owner: str
    ) -> KnownRegion:
        shape = image_shape_of(state.backend)
        pixels = read_picture(image, shape, fit, f"{owner}: image").to(state.x)
        whole = read_mask(mask, shape[1:], fit, f"{owner}: mask").to(state.x)
        given = to_latents(state.backend, pixels)
        grid = F.interpolate(whole[None, None], size=tuple(given.shape[2:]))[0, 0]
        return cls(pixels, whole, given, grid, owner)

    def image(self, state: State) -> Tensor:
        """What the loop has for the image of each of the run's images: (1, ...) or (B, ...)."""
        return state.each(self.given, self.owner)

    def blended(self, unknown: Tensor, known: Tensor) -> Tensor:
        return self.mask * unknown + (1 - self.mask) * known

    def restored(self, state: State) -> Tensor:
        """Finished images, exact where nothing was to be repainted, also where a run was stopped
        in noise."""
        return torch.where(self.whole == 0, state.each(self.pixels, self.owner), state.x)
