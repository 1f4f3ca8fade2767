"""Latent text-to-image models of diffusers behind the loop."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from composer import Output, Request, State, hookimpl
from composer.authoring import short_repr
from composer.predictions import Prediction
from composer.schedules import Schedule
from composer.solvers import Solver
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.latent.families import Family, Rows
from composer_plugins.backends.latent.text import unpacked
from composer_plugins.backends.memory import memory_bound
from composer_plugins.backends.placement import place_of


@dataclass(frozen=True, eq=False, repr=False)
class LatentBackend:
    """A denoiser of latents and the autoencoder around it. Conditions are prompts.

    The loop runs on latents (B, C, h, w) in float32, whatever the denoiser computes in, and
    ``finish`` decodes: results are images (B, 3, H, W). No condition is the empty prompt.

    Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
    arXiv 2112.10752.

    Args:
        network: the denoiser, a UNet or a transformer of diffusers.
        autoencoder: between images and latents.
        embeddings: of the prompts, packed as in :mod:`.text`.
        family: how the denoiser is called.
        schedule, prediction: what it was trained on.
        default_solver: the steps that its pipeline takes.
        size: height and width of the images.
        guidance: the scale that a guidance-distilled denoiser gets unless a plugin says otherwise;
            None for a denoiser that takes none.
        blank: whether no condition is an embedding of zeros, as in SDXL, in place of that of the
            empty prompt.
        device: where the loop keeps x.
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

    __repr__ = short_repr

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latents."""
        height, width = (side // self.autoencoder.factor for side in self.size)
        return self.family.channels(self.network.config), height, width

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of the images."""
        return int(self.autoencoder.vae.config.out_channels), *self.size

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
        state.x = self.decode(state.x)

    def evaluate(self, requests: Sequence[Request]) -> list[Output]:
        batch = len(requests[0].x)
        x = torch.cat([r.x for r in requests])
        times = [r.t for r in requests for _ in range(batch)]
        prompts = [str(r.condition) for r in requests for _ in range(batch)]
        out = self._answers(x, times, prompts, self._guidance(requests))
        return [Output(part) for part in out.split(batch)]

    def _answers(
        self, x: Tensor, times: list[float], prompts: list[str], guidance: Tensor | None
    ) -> Tensor:
        """The predictions (N, C, h, w) of rows: latents, their times, prompts and scales.

        One forward; as many as there are lengths of prompts, for a family that takes one length.
        """
        self.embeddings.free_encoder()
        _, dtype = place_of(self.network)  # with offload, its device is none that x could be on
        texts = {prompt: self._text(prompt, dtype) for prompt in dict.fromkeys(prompts)}
        levels = [self.schedule.at(t)[1] if self.family.flow else t for t in times]
        clock = torch.tensor(levels, dtype=torch.float32).to(self.device)
        groups: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            length = 0 if self.family.ragged else len(texts[prompt][0])
            groups.setdefault(length, []).append(place)
        latents, answers = x.to(dtype), torch.empty_like(x)
        for places in groups.values():
            rows = slice(None) if len(groups) == 1 else places
            answers[rows] = self._forward(
                Rows(
                    latents[rows],
                    clock[rows],
                    [texts[prompts[place]][0] for place in places],
                    torch.stack([texts[prompts[place]][1] for place in places]),
                    None if guidance is None else guidance[rows],
                    self.size,
                )
            ).to(answers)
        return answers

    def _forward(self, rows: Rows) -> Tensor:
        with memory_bound(rows.x):
            return self.family.answer(self.network, rows)

    def _text(self, prompt: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Tokens (L, D) and pooled (P,) of a prompt; of none, zeros if the model wants them so."""
        text = self.embeddings[prompt].to(dtype)
        if self.blank and not prompt:
            text = torch.zeros_like(text)
        return unpacked(text, self.family.pooled(self.network.config))

    def _guidance(self, requests: Sequence[Request]) -> Tensor | None:
        """The scale of each row, for a network that takes one."""
        if self.guidance is None:
            return None
        batch, own = len(requests[0].x), torch.tensor([self.guidance])
        scales = [r.beside.get("guidance", own).expand(batch) for r in requests]
        return torch.cat([scale.to(self.device, torch.float32) for scale in scales])
