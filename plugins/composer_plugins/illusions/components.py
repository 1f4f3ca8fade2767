"""One image whose components each follow their own condition."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import sequence
from composer.authoring import (
    Decomposition,
    Part,
    check_parts,
    combine,
    in_pixels,
    is_latent,
    parts_of,
    require_coder,
    resized,
)


def decompose(
    request: Request, parts: Sequence[Part], conditions: Sequence[Any]
) -> Generator[list[Request], list[Estimate], Estimate]:
    """sum_i P_i f(x, condition_i); the parts P_i sum to the identity, so the law holds.

    A filter does not commute with the decoder of a latent model. There the estimate's clean latents
    are those of sum_i P_i D(z0_i), see ``in_pixels``.
    """
    answers = yield [request.fill(condition) for condition in conditions]
    if is_latent(request.backend):

        def summed(*images: Tensor) -> Tensor:
            terms = [part(image) for part, image in zip(parts, images, strict=True)]
            return torch.stack(terms).sum(0)

        z0 = in_pixels(request.backend, summed, *(answer.x0 for answer in answers))
        return answers[0].with_x0(z0)
    filtered = [answer.filtered(part) for answer, part in zip(answers, parts, strict=True)]
    return combine([1.0] * len(filtered), filtered)


@dataclass(frozen=True, eq=False)
class Components(Plugin):
    """One condition per part of a decomposition, such as regions, gray and colour, or bands.

    The estimate is sum_i P_i f(x, condition_i). A latent model decodes the clean latents of each
    condition, the parts of the images are added, and their sum is encoded.

    Geng, Park & Owens 2024, "Factorized Diffusion", arXiv 2404.11615.

    Args:
        parts: a decomposition such as ``GrayColour()`` or ``Masks([mask, 1 - mask])``, or linear
            maps (B, C, H, W) -> (B, C, H, W) whose sum is the identity; checked when the Sampler
            is built.
        conditions: one per part; a condition may be a plugin, such as an Anagram.
    """

    parts: Decomposition | Sequence[Part]
    conditions: Sequence[Any]

    def __post_init__(self) -> None:
        count = len(parts_of(self.parts, "Components"))
        conditions = sequence(self.conditions, "Components: conditions")
        if not count or count != len(conditions):
            raise ValueError(
                f"Components: conditions must be {count}, one per part, got {len(conditions)}."
            )

    def resized(self, height: int, width: int) -> Self:
        conditions = [resized(condition, height, width) for condition in self.conditions]
        return replace(self, parts=resized(self.parts, height, width), conditions=conditions)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "Components")
        check_parts(self.parts, stack.backend, "Components")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        return (yield from decompose(request, parts_of(self.parts, "Components"), self.conditions))
