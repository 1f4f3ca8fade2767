"""Frequency-decoupled guidance: a guidance scale for each frequency band."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from composer import UNCONDITIONAL, Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite_list, interval, within
from composer.authoring import Decomposition, Part, check_parts, combine, parts_of, resized
from composer_plugins.illusions.decompositions import Bands


@dataclass(frozen=True, eq=False)
class FDG(Plugin):
    """Guide each part of the prediction by its own scale: uncond + sum_k w_k P_k (cond - uncond).

    Low frequencies hold the layout and the colours, and strong guidance there makes images alike
    and saturated. High frequencies hold the details, which profit from it. Equal scales are CFG.
    It needs the rows of CFG.

    The coefficients sum to the identity, so the law of composition holds; the learned variance is
    the conditional branch's. It works on latents too, as the paper does: frequencies of latents are
    about those of the image. With anagrams whose views keep the bands, such as rotations and
    flips, it commutes.

    Sadat et al. 2025, "Guidance in the Frequency Domain Enables High-Fidelity Sampling at Low CFG
    Scales", arXiv 2506.19713.

    Args:
        scales: one per part, the coarsest first; the paper's are 5 and 10 for SDXL.
        parts: a decomposition such as ``Bands((4.0, 2.0))`` or ``LaplacianPyramid(2)``, or linear
            maps (B, C, H, W) -> (B, C, H, W) whose sum is the identity.
        interval: noise levels within which to guide, as for CFG.
    """

    scales: Sequence[float]
    parts: Decomposition | Sequence[Part] = Bands()
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        count = len(parts_of(self.parts, "FDG"))
        if len(finite_list(self.scales, "FDG: scales")) != count:
            raise ValueError(
                f"FDG: scales must be {count}, one per part and the coarsest first, got "
                f"{len(self.scales)}."
            )
        interval(self.interval, "FDG: interval")

    def resized(self, height: int, width: int) -> Self:
        return replace(self, parts=resized(self.parts, height, width))

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_parts(self.parts, stack.backend, "FDG")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        if {*self.scales} == {1} or not within(request.noise_level, self.interval):
            return (yield [request])[0]
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        shifts = [(cond - uncond).filtered(part) for part in parts_of(self.parts, "FDG")]
        return combine((1, *self.scales), (uncond, *shifts), variance=cond)
