"""Guidance rescale: guidance that keeps the contrast of the unguided prediction."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch

from composer import Estimate, Request, hookimpl
from composer.arguments import finite
from composer.errors import shown
from composer.predictions import V
from composer_plugins.guidance.around import AroundGuidance
from composer_plugins.guidance.cfg import require_guidance


@dataclass(frozen=True, eq=False)
class Rescale(AroundGuidance):
    """Give each image's guided prediction the standard deviation of its unguided one.

    With v = alpha noise - sigma x_0, guided and plain (the request itself, without the guidance),

        v <- phi * std(plain) / std(guided) * v + (1 - phi) * v.

    It works in v, as the paper does, because v is regular at every noise level. The paper's phi is
    0.7; 0 is the guidance itself. It leaves the law of composition on purpose. The image is the
    same for every prediction type of the model.

    The guidance and the plain request share their conditional row, so Rescale adds no row. Inside
    an anagram (after it in the list) it rescales each view; around one, it rescales the mean of the
    views.

    Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    arXiv 2305.08891, section 3.4.

    Args:
        guidance: the plugin that guides, such as CFG(7.5) or APG(CFG(7.5)).
        phi: how much of the rescaling to take, in [0, 1].
    """

    obeys_law = False
    predicts = V

    guidance: Any
    phi: float = 0.7

    def __post_init__(self) -> None:
        require_guidance(self.guidance, "Rescale")
        if not 0 <= finite(self.phi, "Rescale: phi") <= 1:
            raise ValueError(f"Rescale: phi must be in [0, 1], got {shown(self.phi)}.")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        guided, plain = yield [request.fill(self.guidance), request]
        path = guided.schedule.at(guided.t)
        v, goal = (V.target(e.x0, e.noise, *path) for e in (guided, plain))
        spread, wanted = (part.flatten(1).std(1, correction=0) for part in (v, goal))
        ratio = torch.where(spread > 0, wanted / spread, 1.0)[:, None, None, None]
        return guided.replace(prediction=(self.phi * ratio + 1 - self.phi) * v, kind=V)
