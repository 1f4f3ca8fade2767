"""Guidance that stops asking the unconditional model once both branches agree."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from composer import UNCONDITIONAL, Estimate, Plugin, Request, hookimpl
from composer.arguments import finite
from composer.authoring import to_device
from composer_plugins.guidance.cfg import guide


@dataclass(frozen=True, eq=False)
class AdaptiveGuidance(Plugin):
    """Classifier-free guidance until the clean images of both branches agree.

    With the cosine similarity gamma of the conditional and the unconditional x_0 of an image, a
    step guides as :class:`CFG`; after a step with gamma >= threshold the image follows the
    conditional model alone, at one row a step. Each image decides for itself, and inside an Anagram
    each view of it. After a jump back to more noise than where it agreed, it is guided again.

    The paper compares the noises. In pure noise these are both x, whatever the branches say, so on
    a path that begins there they agree at first; the clean images agree at its end only.

    It obeys the law of composition, because each step's coefficients sum to one. Each step reads B
    numbers from the device, because its rows depend on them; ``CFG(scale, interval)`` plans the
    same by the noise level and reads nothing.

    Castillo et al. 2023, "Adaptive Guidance: Training-free Acceleration of Conditional Diffusion
    Models", arXiv 2312.12487, section 5.

    Args:
        scale: the guidance scale.
        threshold: the similarity in [-1, 1] from which an image is guided no longer; above 1 means
            never, as CFG.
    """

    scale: float
    threshold: float = 0.99

    def __post_init__(self) -> None:
        finite(self.scale, "AdaptiveGuidance: scale")
        if finite(self.threshold, "AdaptiveGuidance: threshold") < -1:
            raise ValueError(
                f"AdaptiveGuidance: threshold must be at least -1, got {self.threshold:g}."
            )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        if self.scale == 1:
            return (yield [request])[0]
        key = self, request.place
        agreed = request.carried.get(key, torch.zeros(len(request.x), device=request.x.device))
        guided = [k for k, at in enumerate(agreed.tolist()) if at <= request.noise_level]
        if not guided:
            return (yield [request])[0]
        if len(guided) == len(agreed):
            cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
            request.carried[key] = self._agreed(agreed, cond, uncond, request.noise_level)
            return guide(uncond, cond, self.scale)
        rows = torch.tensor(guided)
        cond, uncond = yield [request, request.rows(rows).replace(condition=UNCONDITIONAL)]
        some, here = cond.rows(rows).replace(x=uncond.x), to_device(rows, request.x.device)
        now = self._agreed(agreed[rows], some, uncond, request.noise_level)
        request.carried[key] = agreed.index_copy(0, here, now)
        pulled = guide(uncond, some, self.scale).prediction
        return cond.replace(prediction=cond.prediction.index_copy(0, here, pulled))

    def _agreed(self, before: Tensor, cond: Estimate, uncond: Estimate, level: float) -> Tensor:
        """(B,) the noise level at which each image agreed; 0 if it has not."""
        alike = similarity(cond, uncond) >= self.threshold
        return torch.where(alike, torch.full_like(before, level), before)


def similarity(one: Estimate, other: Estimate) -> Tensor:
    """(B,) the cosine similarity of the clean images of two estimates."""
    return F.cosine_similarity(one.x0.flatten(1), other.x0.flatten(1), dim=1)
