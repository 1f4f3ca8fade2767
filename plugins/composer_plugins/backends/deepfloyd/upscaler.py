"""Stage III: the latent upscaler of Stable Diffusion behind the loop."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from composer import Batch, Output, Stack, State, hookimpl
from composer.authoring import short_repr, to_images
from composer.predictions import Prediction
from composer.schedules import DiscreteSchedule
from composer.solvers import Solver
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.deepfloyd.network import asked, require_image

SCALING = 0.08333
"""Of latents to about unit variance; the pipeline puts it in place of any other, too."""


@dataclass(frozen=True, eq=False, repr=False)
class UpscalerBackend:
    """The x4 upscaler of Stable Diffusion, IF's stage III. Conditions are prompts.

    The loop runs on latents (B, 4, h, w), h and w being those of the small image beside them, and
    ``finish`` decodes: results are images (B, 3, 4 h, 4 w). A view does not commute with the
    decoder: plugins that need pixels raise an error, guidance is welcome.

    Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
    arXiv 2112.10752, section 4.4.

    Args:
        unet: a UNet2DConditionModel of 4 + 3 channels in, 4 out.
        autoencoder: kept in float32 because it overflows in float16.
        embeddings: embeddings of the prompts.
        schedule, prediction: the path and prediction type of its training.
        default_solver: the pipeline's own scheduler, as a solver.
        low_res_schedule: on which the small image is noised, up to the highest level allowed.
        size: height and width of the images.
        device: device of the networks.
    """

    unet: Any
    autoencoder: Autoencoder
    embeddings: Embeddings
    schedule: DiscreteSchedule
    prediction: Prediction
    default_solver: Solver
    low_res_schedule: DiscreteSchedule
    size: int
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    __repr__ = short_repr

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"unet": self.unet, "vae": self.autoencoder.vae}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(4, h, w) of the latents."""
        side = self.size // self.autoencoder.factor
        return self.autoencoder.vae.config.latent_channels, side, side

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, 4 h, 4 w) of the images."""
        return self.autoencoder.vae.config.out_channels, self.size, self.size

    def encode(self, condition: Any) -> Hashable:
        return self.embeddings.encode(condition)

    def evaluate(self, batch: Batch) -> Output:
        return Output(asked(self.unet, self.embeddings, batch).to(self.dtype))

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_image(stack)

    @hookimpl(trylast=True)  # others finish on latents too
    def finish(self, state: State) -> None:
        state.x = to_images(state.backend, state.x)  # the run's, which may wrap this one

    def encode_image(self, x: Tensor) -> Tensor:
        """Latents (B, 4, h, w) of images x (B, 3, 4 h, 4 w) in [-1, 1]: the posterior's mode."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, 4 h, 4 w) of latents z (B, 4, h, w)."""
        return self.autoencoder.decode(z)
