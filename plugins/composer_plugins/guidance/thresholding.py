"""Dynamic thresholding: clean images kept within [-1, 1] without clipping them flat."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

from composer import Estimate, Plugin, Request, hookimpl
from composer.arguments import finite
from composer.authoring import clipped, dynamic_threshold
from composer.errors import shown
from composer.predictions import SAMPLE


@dataclass(frozen=True, eq=False)
class DynamicThreshold(Plugin):
    """Threshold the clean image that everything inside estimates, at each step.

    With s the ``percentile`` of |x_0| within each image, held in [1, max_value],

        x_0 <- clamp(x_0, -s, s) / s,

    so that pixels which guidance drove out of range move back inside instead of piling up at the
    edge. It leaves the law of composition on purpose: it works on x_0, and the noise follows from
    it. Around an anagram (before it in the list) it thresholds the mean of the views; inside, each
    view. Both are the same where all views are permutations and their estimates agree.

    Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding" (Imagen), arXiv 2205.11487, section 2.3.

    Args:
        percentile: of the absolute values, in [0, 1].
        max_value: the largest s, at least 1; 1 is plain clipping to [-1, 1].
    """

    obeys_law = False
    predicts = SAMPLE
    needs_pixels = True

    percentile: float = 0.95
    max_value: float = 1.5

    def __post_init__(self) -> None:
        if not 0 <= finite(self.percentile, "DynamicThreshold: percentile") <= 1:
            raise ValueError(
                f"DynamicThreshold: percentile must be in [0, 1], got {shown(self.percentile)}."
            )
        if finite(self.max_value, "DynamicThreshold: max_value") < 1:
            raise ValueError(
                f"DynamicThreshold: max_value must be at least 1, got {shown(self.max_value)}."
            )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        bounds = partial(dynamic_threshold, percentile=self.percentile, max_value=self.max_value)
        return (yield from clipped(request, bounds))
