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
    """An image and a mask in the device and dtype of a run.

    A latent model is shown the latents of the image, and the mask reduced to their grid: the value
    of the nearest pixel, as in the pipelines of diffusers.

    Attributes:
        pixels: (1, C, H, W), or one image per seed.
        whole: the mask (H, W) in [0, 1] of the pixels, 1 = repaint.
        given: the pixels, or their latents over a latent model.
        mask: ``whole`` on the grid of ``given``.
        owner: the plugin that messages name.
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
        """The known image or its latents for each row of the run: (1, ...) or (B, ...)."""
        return state.each(self.given, self.owner)

    def blended(self, unknown: Tensor, known: Tensor) -> Tensor:
        return self.mask * unknown + (1 - self.mask) * known

    def restored(self, state: State) -> Tensor:
        """Finished images with the known pixels set exactly, also after a run that stopped in
        noise."""
        return torch.where(self.whole == 0, state.each(self.pixels, self.owner), state.x)
