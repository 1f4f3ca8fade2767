"""The UNets of DeepFloyd IF behind the loop."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from composer import UNCONDITIONAL, Estimate, Output, Request, hookimpl
from composer.predictions import EPSILON, Prediction
from composer.schedules import DiscreteSchedule
from composer.solvers import DDPM, Solver
from composer_plugins.backends.deepfloyd.embeddings import NEGATIVE, Embeddings
from composer_plugins.backends.memory import memory_bound
from composer_plugins.thresholding import DynamicThreshold


@dataclass(frozen=True, eq=False)
class DeepFloydBackend:
    """Stage I or II of DeepFloyd IF. Conditions are prompts; no condition is the empty prompt.

    The UNet predicts epsilon and a learned variance, 2C channels, and every estimate's clean image
    is thresholded dynamically, as it is in the pipelines, whatever the solver. The loop keeps x in
    float32 whatever the UNet computes in.

    Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding" (Imagen), arXiv 2205.11487, after which IF was built.

    Args:
        unet: a UNet2DConditionModel of IF.
        embeddings: of the prompts.
        schedule: what it was trained on.
        threshold: what is done to each estimated clean image; None leaves it as it is.
        size: height and width of the images.
        device: where the UNet computes.
        low_res_schedule: for stage II, the path on which its low-resolution image is noised.
    """

    unet: Any
    embeddings: Embeddings
    schedule: DiscreteSchedule
    threshold: DynamicThreshold | None
    size: int
    device: torch.device = torch.device("cpu")
    low_res_schedule: DiscreteSchedule | None = None
    prediction: Prediction = EPSILON
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.unet.config.out_channels // 2, self.size, self.size

    @property
    def default_solver(self) -> Solver:
        return DDPM()

    def encode(self, condition: Any) -> Hashable:
        prompt = NEGATIVE if condition is UNCONDITIONAL else condition
        if not isinstance(prompt, str):
            raise ValueError(f"a condition must be a prompt, a string, got {condition!r}")
        return self.embeddings.prompt(prompt)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        if self.threshold is None:
            return (yield [request])[0]
        return (yield from self.threshold.noise_estimate(request))

    def evaluate(self, requests: Sequence[Request]) -> list[Output]:
        """One forward; as many as there are lengths L, should embeddings differ in theirs."""
        self.embeddings.free_encoder()
        places: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(self.embeddings[request.condition].shape[1], []).append(place)
        outputs: dict[int, Output] = {}
        for group in places.values():
            # Unconditional rows first, as in the pipelines: equal to the last bit, not nearly.
            group.sort(key=lambda place: requests[place].condition != NEGATIVE)
            answers = self._forward([requests[place] for place in group])
            outputs.update(zip(group, answers, strict=True))
        return [outputs[place] for place in range(len(requests))]

    def _forward(self, requests: Sequence[Request]) -> list[Output]:
        batch = len(requests[0].x)
        x = torch.cat([self._seen(r) for r in requests]).to(self.unet.dtype)
        # Float32 also for a half-precision network: bfloat16 has no 999.
        times = torch.tensor([r.t for r in requests], dtype=torch.float32, device=self.device)
        text = torch.cat([self.embeddings[r.condition] for r in requests]).to(x)
        with memory_bound(x):
            out: Tensor = self.unet(
                x,
                times.repeat_interleave(batch),
                encoder_hidden_states=text.repeat_interleave(batch, 0),
                class_labels=self._labels(requests),
                return_dict=False,
            )[0]
        prediction, variance = out.to(self.dtype).split(self.shape[0], 1)
        return [
            Output(*pair)
            for pair in zip(prediction.split(batch), variance.split(batch), strict=True)
        ]

    def _seen(self, request: Request) -> Tensor:
        """What the UNet looks at: x, and in stage II the low-resolution image behind it."""
        if self.low_res_schedule is None:
            return request.x
        if "low_res" not in request.beside:
            raise ValueError(
                "stage II enlarges an image and was given none; add "
                "composer_plugins.SuperResolution(image) to the plugins"
            )
        low_res = request.beside["low_res"].expand(len(request.x), -1, -1, -1)
        return torch.cat([request.x, low_res], 1)

    def _labels(self, requests: Sequence[Request]) -> Tensor | None:
        if self.low_res_schedule is None:
            return None
        return torch.cat([r.beside["noise_level"].expand(len(r.x)) for r in requests])
