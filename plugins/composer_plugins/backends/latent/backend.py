"""Latent text-to-image models of diffusers behind the loop."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from composer import Batch, Output, State, hookimpl
from composer.authoring import grouped, numbers_to_device, short_repr, to_images
from composer.predictions import Prediction
from composer.schedules import Schedule
from composer.solvers import Solver
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.forward import forward
from composer_plugins.backends.latent.families import Family, Rows, Texts
from composer_plugins.backends.latent.text import unpacked
from composer_plugins.backends.placement import place_of


@dataclass(frozen=True, eq=False, repr=False)
class LatentBackend:
    """A denoiser of latents and the autoencoder around it. Conditions are prompts.

    The loop runs on latents (B, C, h, w) in float32 at least, whatever the denoiser computes in,
    and ``finish`` decodes: results are images (B, 3, H, W). No condition is the empty prompt.

    Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
    arXiv 2112.10752.

    Args:
        network: the denoiser, a UNet or a transformer of diffusers.
        autoencoder: the map between images and latents.
        embeddings: embeddings of the prompts, packed as in :mod:`.text`.
        family: how the denoiser is called.
        schedule, prediction: the path and prediction type of its training.
        default_solver: the solver of its pipeline.
        size: height and width of the images.
        guidance: the scale that a guidance-distilled denoiser gets unless a plugin says otherwise;
            None for a denoiser without a scale.
        blank: whether no condition means an embedding of zeros, as in SDXL, instead of the empty
            prompt's.
        device, dtype: of x in the loop.
    """

    network: Any
    autoencoder: Autoencoder
    embeddings: Embeddings
    family: Family
    schedule: Schedule
    prediction: Prediction
    default_solver: Solver
    size: tuple[int, int]
    guidance: float | None = None
    blank: bool = False
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    _kept: dict[Any, Mapping[str, Any]] = field(default_factory=dict, init=False, repr=False)

    __repr__ = short_repr

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents."""
        height, width = (side // self.autoencoder.factor for side in self.size)
        return self.family.channels(self.network.config), height, width

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W) of the images."""
        return int(self.autoencoder.vae.config.out_channels), *self.size

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"network": self.network}

    @property
    def differentiable(self) -> bool:
        """Whether gradients flow: unless hooks of diffusers move or cast its weights."""
        networks = self.network, self.autoencoder.vae
        return not any(hasattr(m, "_diffusers_hook") for n in networks for m in n.modules())

    def encode(self, condition: Any) -> Hashable:
        return self.embeddings.encode(condition)

    def encode_image(self, x: Tensor) -> Tensor:
        """Latents (B, *shape) of images x (B, 3, H, W) in [-1, 1]: the mode of the autoencoder's
        posterior, shifted and scaled as the denoiser takes it."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, *image_shape) of latents z (B, *shape)."""
        return self.autoencoder.decode(z)

    @hookimpl(trylast=True)  # what other plugins do at the end, they do to the latents
    def finish(self, state: State) -> None:
        state.x = to_images(state.backend, state.x)  # the run's, which may wrap this one

    def evaluate(self, batch: Batch) -> Output:
        """One forward, or one per length of prompts for a family that takes one length per call."""
        self.embeddings.free_encoder()
        _, dtype = place_of(self.network)  # with offload, its device is none that x could be on
        ragged = self.family.ragged
        prompts = cast("tuple[str, ...]", batch.conditions)
        groups = grouped([0 if ragged else self.embeddings[p].shape[1] for p in prompts])
        answers = [Output(self._forward(batch.take(rows), dtype)) for rows in groups]
        return Output.gathered(answers, groups)

    def _forward(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        times = [self.schedule.at(t)[1] for t in batch.times] if self.family.flow else batch.times
        rows = Rows(
            batch.x.to(dtype),
            numbers_to_device(times, self.device),
            self._given(cast("tuple[str, ...]", batch.conditions), dtype),
            self._guidance(batch),
        )
        answer = partial(self.family.answer, self.network, rows)
        return forward(answer, rows.x, self.dtype)

    def _given(self, prompts: tuple[str, ...], dtype: torch.dtype) -> Mapping[str, Any]:
        """What the denoiser gets of rows' prompts; kept, because the next step needs the same."""
        if (prompts, dtype) not in self._kept:
            known = {prompt: self._text(prompt, dtype) for prompt in dict.fromkeys(prompts)}
            tokens, pooled = zip(*(known[prompt] for prompt in prompts), strict=True)
            self._kept.clear()
            texts = Texts([*tokens], torch.stack(pooled), self.size, self.shape[1:])
            self._kept[prompts, dtype] = self.family.given(texts)
        return self._kept[prompts, dtype]

    def _text(self, prompt: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Tokens (L, D) and pooled (P,) of a prompt; of none, zeros if the model wants them so."""
        text = self.embeddings[prompt].to(dtype)
        if self.blank and not prompt:
            text = torch.zeros_like(text)
        return unpacked(text, self.family.pooled(self.network.config))

    def _guidance(self, batch: Batch) -> Tensor | None:
        """The scale of each row, for a network that takes one."""
        if self.guidance is None:
            return None
        given = batch.beside.get("guidance")
        own = torch.full((len(batch),), self.guidance, device=self.device)
        return own if given is None else given.to(own)
