"""The autoencoder between images and latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from composer_plugins.backends.forward import forward
from composer_plugins.backends.placement import place_of

LIGHTER = "Load it with vae_tiling=True or with offload=True"


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """An AutoencoderKL of diffusers, its latents brought to about unit variance.

    With m the mode of the posterior of an image, the latents are z = (m - shift) / gain, and an
    image is the decoder's output for gain z + shift.

    Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
    arXiv 2112.10752.

    Args:
        vae: the AutoencoderKL, in evaluation mode.
        gain, shift: numbers, or tensors (1, C, 1, 1).
        slicing: work on one image at a time, which takes the least memory.
    """

    vae: Any
    gain: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    slicing: bool = True

    @classmethod
    def of(cls, vae: Any, slicing: bool = True, tiling: bool = False) -> Self:
        """The autoencoder with the gain and shift that its configuration states.

        Args:
            vae: an AutoencoderKL.
            slicing: one image at a time.
            tiling: images in tiles that overlap, for large images on small devices.
        """
        config = vae.config
        if tiling:
            vae.enable_tiling()
        gain, shift = 1 / config.scaling_factor, config.get("shift_factor") or 0.0
        mean, spread = config.get("latents_mean"), config.get("latents_std")
        if mean is None or spread is None:
            return cls(vae, gain, shift, slicing)
        means, spreads = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, spread))
        return cls(vae, spreads * gain, means, slicing)

    @property
    def factor(self) -> int:
        """The factor by which it divides the sides of an image."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]: the posterior's mode."""
        modes = self._each(images, lambda x: self.vae.encode(x, return_dict=False)[0].mode())
        return (modes - self._on(self.shift, modes)) / self._on(self.gain, modes)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) of latents (B, C, h, w)."""
        scaled = latents * self._on(self.gain, latents) + self._on(self.shift, latents)
        return self._each(scaled, lambda z: self.vae.decode(z, return_dict=False)[0])

    def _each(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        _, dtype = place_of(self.vae)  # with offload, its device is none that x could be on
        rows = x.to(dtype).split(1 if self.slicing else len(x))
        tracked = torch.is_grad_enabled() and x.requires_grad
        with torch.set_grad_enabled(tracked):
            made = forward(
                lambda: torch.cat([function(row) for row in rows]), rows[0], x.dtype, LIGHTER
            )
        return made.to(x.device)

    @staticmethod
    def _on(value: Tensor | float, like: Tensor) -> Tensor | float:
        return value.to(like) if isinstance(value, Tensor) else value
