"""One image whose components each follow their own condition."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from composer import Estimate, Request, Sampler, hookimpl
from composer.requests import total
from composer.transforms import check_parts

Part = Callable[[Tensor], Tensor]


def decompose(
    request: Request, parts: Sequence[Part], conditions: Sequence[Any]
) -> Generator[list[Request], list[Estimate], Estimate]:
    """sum_i P_i f(x, condition_i); lawful because the parts P_i sum to the identity."""
    answers = yield [request.fill(condition) for condition in conditions]
    filtered = [answer.filtered(part) for answer, part in zip(answers, parts, strict=True)]
    return total(request, filtered)


@dataclass(frozen=True, eq=False)
class Components:
    """A decomposition of your own: linear parts that sum to the identity, a condition for each.

    Geng, Park & Owens 2024, "Factorized Diffusion", arXiv 2404.11615.

    Args:
        parts: linear maps (B, C, H, W) -> (B, C, H, W) whose sum is the identity; checked when
            the Sampler is built.
        conditions: one a part; a condition may be a plugin, such as an Anagram.
    """

    parts: Sequence[Part]
    conditions: Sequence[Any]

    def __post_init__(self) -> None:
        if not self.parts or len(self.parts) != len(self.conditions):
            raise ValueError(
                f"Components: {len(self.parts)} parts and {len(self.conditions)} conditions; "
                "give one condition a part"
            )

    @hookimpl
    def check(self, sampler: Sampler) -> None:
        check_parts(self.parts, sampler.backend.shape, "Components")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        return (yield from decompose(request, self.parts, self.conditions))
