"""Adaptive projected guidance: guidance without the part that only adds saturation."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from composer import Estimate, Request, hookimpl
from composer.arguments import finite, positive
from composer.predictions import SAMPLE
from composer_plugins.guidance.around import AroundGuidance
from composer_plugins.guidance.cfg import require_guidance


@dataclass(frozen=True, eq=False)
class APG(AroundGuidance):
    """Adaptive projected guidance: weigh the part of guidance along the image itself by ``eta``.

    Guidance moves the clean image p of the plain request by u = x_0 - p, which under CFG is
    (scale - 1)(x_0 of the conditional - x_0 of the unconditional). With u shortened to
    ``norm_threshold`` and split into u = u_parallel + u_orthogonal along p, within each image,

        x_0 = p + u_orthogonal + eta * u_parallel.

    The parallel part raises contrast and saturation, the orthogonal one quality. eta = 1 without a
    threshold is the guidance itself. The paper bounds the difference of the branches by a radius r:
    r (scale - 1) / sqrt(C H W) is the threshold here, which is the same at every resolution. Its
    momentum over the steps is left out (its beta is 0): a request carries no memory, and under an
    anagram each view would need its own.

    It leaves the law of composition on purpose: it works on x_0. The guidance and the plain request
    share their conditional row, so APG adds no row. Inside an anagram (after it in the list) it
    projects within each view; around one, along the mean of the views.

    Sadat et al. 2024, "Eliminating Oversaturation and Artifacts of High Guidance Scales in
    Diffusion Models", arXiv 2410.02416.

    Args:
        guidance: the plugin that guides, such as CFG(7.5).
        eta: the weight of the parallel part; the paper's is 0.
        norm_threshold: the longest u, as a root mean square over the image; None for no bound.
    """

    obeys_law = False
    predicts = SAMPLE

    guidance: Any
    eta: float = 0.0
    norm_threshold: float | None = None

    def __post_init__(self) -> None:
        require_guidance(self.guidance, "APG")
        finite(self.eta, "APG: eta")
        if self.norm_threshold is not None:
            positive(self.norm_threshold, "APG: norm_threshold")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        guided, plain = yield [request.fill(self.guidance), request]
        update = guided.x0 - plain.x0
        if self.norm_threshold is not None:
            update = shortened(update, self.norm_threshold)
        along = parallel(update, plain.x0)
        x0 = plain.x0 + (update - along) + self.eta * along
        return guided.replace(prediction=x0, kind=SAMPLE)


def shortened(update: Tensor, longest: float) -> Tensor:
    """Scale each image (B, C, H, W) to a root mean square of at most ``longest``."""
    length = update.square().mean((1, 2, 3), keepdim=True).sqrt()
    return update * torch.where(length > longest, longest / length, 1.0)


def parallel(update: Tensor, image: Tensor) -> Tensor:
    """The part of each ``update`` along its ``image`` (B, C, H, W); 0 for an image of zeros."""
    whole = (1, 2, 3)
    square = image.square().sum(whole, keepdim=True)
    share = (update * image).sum(whole, keepdim=True) / square
    return torch.where(square > 0, share, 0.0) * image
