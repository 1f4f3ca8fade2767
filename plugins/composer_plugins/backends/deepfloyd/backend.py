"""The UNets of DeepFloyd IF behind the loop."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from composer import Batch, Estimate, Output, Request, Stack, hookimpl
from composer.authoring import Clip, clipped, short_repr
from composer.predictions import EPSILON, Prediction
from composer.schedules import DiscreteSchedule
from composer.solvers import DDPM, Solver
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.deepfloyd.network import asked, require_image


@dataclass(frozen=True, eq=False, repr=False)
class DeepFloydBackend:
    """Stage I or II of DeepFloyd IF. Conditions are prompts; no condition is the empty prompt.

    The UNet predicts epsilon and a learned variance (2C channels). The backend thresholds every
    estimated clean image dynamically, as the pipelines do, for every solver. The loop keeps x in
    float32 whatever the UNet computes in.

    Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding" (Imagen), arXiv 2205.11487, the model that IF follows.

    Args:
        unet: a UNet2DConditionModel of IF.
        embeddings: embeddings of the prompts.
        schedule: the path of its training.
        threshold: function applied to each estimated clean image; None leaves it as it is.
        size: height and width of the images.
        device: device of the UNet.
        low_res_schedule: for stage II, the path on which its low-resolution image is noised.
    """

    unet: Any
    embeddings: Embeddings
    schedule: DiscreteSchedule
    threshold: Clip | None
    size: int
    device: torch.device = torch.device("cpu")
    low_res_schedule: DiscreteSchedule | None = None
    prediction: Prediction = EPSILON
    dtype: torch.dtype = torch.float32

    __repr__ = short_repr

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"unet": self.unet}

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.unet.config.out_channels // 2, self.size, self.size

    @property
    def default_solver(self) -> Solver:
        return DDPM()

    def encode(self, condition: Any) -> Hashable:
        return self.embeddings.encode(condition)

    @hookimpl
    def check(self, stack: Stack) -> None:
        if self.low_res_schedule is not None:
            require_image(stack)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        return (yield from clipped(request, self.threshold))

    def evaluate(self, batch: Batch) -> Output:
        out = asked(self.unet, self.embeddings, batch).to(self.dtype)
        return Output(*out.split(self.shape[0], 1))
