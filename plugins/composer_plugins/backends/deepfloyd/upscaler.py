"""Stage III: the latent upscaler of Stable Diffusion behind the loop."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from composer import Batch, Output, Stack, State, hookimpl
from composer.authoring import declared, short_repr, with_nested
from composer.predictions import Prediction
from composer.schedules import DiscreteSchedule
from composer.solvers import Solver
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.deepfloyd.network import asked, require_image
from composer_plugins.backends.deepfloyd.reading import halved
from composer_plugins.backends.memory import memory_bound

SCALING = 0.08333
"""Of latents to about unit variance; the pipeline puts it in place of any other, too."""


@dataclass(frozen=True, eq=False, repr=False)
class UpscalerBackend:
    """The x4 upscaler of Stable Diffusion, IF's stage III. Conditions are prompts.

    The loop runs on latents (B, 4, h, w), h and w being those of the small image beside them, and
    ``finish`` decodes: results are images (B, 3, 4 h, 4 w). A view does not commute with the
    decoder, nor does a filter: plugins that look at pixels are refused, guidance is welcome.

    Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
    arXiv 2112.10752, section 4.4.

    Args:
        unet: a UNet2DConditionModel of 4 + 3 channels in, 4 out.
        vae: an AutoencoderKL, in float32 whatever the UNet computes in: it overflows in float16.
        embeddings: of the prompts.
        schedule, prediction: what the UNet was trained on.
        default_solver: the pipeline's own scheduler, as a solver.
        low_res_schedule: on which the small image is noised, up to the highest level allowed.
        size: height and width of the images made.
        device: where all of it computes.
    """

    unet: Any
    vae: Any
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
        return {"unet": self.unet, "vae": self.vae}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latents."""
        side = self.size // halved(self.vae.config)
        return self.vae.config.latent_channels, side, side

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of the images."""
        return self.vae.config.out_channels, self.size, self.size

    def encode(self, condition: Any) -> Hashable:
        return self.embeddings.encode(condition)

    def evaluate(self, batch: Batch) -> Output:
        return Output(asked(self.unet, self.embeddings, batch).to(self.dtype))

    @hookimpl
    def check(self, stack: Stack) -> None:
        for plugin in with_nested(stack.plugins):
            if declared(plugin, "needs_pixels"):
                raise ValueError(
                    f"{type(plugin).__name__} works on pixels and stage III on latents; keep "
                    "it to the stages before, and run this one as Stage(..., plain=True)"
                )

        require_image(stack)

    @hookimpl(trylast=True)  # others finish on latents too
    def finish(self, state: State) -> None:
        state.x = self.decoded(state.x)

    def decoded(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) of latents (B, 4, h, w), one at a time: decoding takes the most
        memory of all."""
        rows = (latents / SCALING).to(self.vae.dtype).split(1)
        with memory_bound(rows[0]):
            images = [self.vae.decode(row, return_dict=False)[0] for row in rows]
        return torch.cat(images).to(self.dtype)
