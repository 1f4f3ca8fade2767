"""One image whose components each follow their own condition."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch

from composer import Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import lacking, sequence
from composer.authoring import check_parts, combine
from composer.errors import shown
from composer_plugins.illusions.decompositions import Decomposition, Part
from composer_plugins.resizing import resized


def decompose(
    request: Request, parts: Sequence[Part], conditions: Sequence[Any]
) -> Generator[list[Request], list[Estimate], Estimate]:
    """sum_i P_i f(x, condition_i); lawful because the parts P_i sum to the identity."""
    answers = yield [request.fill(condition) for condition in conditions]
    filtered = [answer.filtered(part) for answer, part in zip(answers, parts, strict=True)]
    return combine([1.0] * len(filtered), filtered)


def parts_of(decomposition: Decomposition | Sequence[Part]) -> tuple[Part, ...]:
    """The parts of a decomposition, or the functions given as such."""
    if not lacking(decomposition, Decomposition):
        return cast(Decomposition, decomposition).parts
    parts = sequence(decomposition, "a decomposition must have parts, or be functions; it")
    if not all(callable(part) for part in parts):
        raise TypeError(f"the parts of a decomposition must be functions, got {shown(parts)}")
    return tuple(parts)


@dataclass(frozen=True, eq=False)
class Components(Plugin):
    """A condition for each part of a decomposition: regions, gray and colour, bands, your own.

    The estimate is sum_i P_i f(x, condition_i).

    Geng, Park & Owens 2024, "Factorized Diffusion", arXiv 2404.11615.

    Args:
        parts: a decomposition such as ``GrayColour()`` or ``Masks([mask, 1 - mask])``, or linear
            maps (B, C, H, W) -> (B, C, H, W) whose sum is the identity; checked when the Sampler
            is built.
        conditions: one a part; a condition may be a plugin, such as an Anagram.
    """

    needs_pixels = True

    parts: Decomposition | Sequence[Part]
    conditions: Sequence[Any]

    def __post_init__(self) -> None:
        count = len(parts_of(self.parts))
        conditions = sequence(self.conditions, "Components: conditions")
        if not count or count != len(conditions):
            raise ValueError(
                f"Components: {count} parts and {len(conditions)} conditions; give one "
                "condition a part"
            )

    def resized(self, height: int, width: int) -> Self:
        conditions = [resized(condition, height, width) for condition in self.conditions]
        return replace(self, parts=resized(self.parts, height, width), conditions=conditions)

    @hookimpl
    def check(self, stack: Stack) -> None:
        shape = stack.backend.shape
        check_parts(parts_of(self.parts), shape, "Components")
        probe = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
        for part, condition in zip(parts_of(self.parts), self.conditions, strict=True):
            if not bool(part(probe).any()):
                raise ValueError(
                    f"Components: the part for {condition!r} is zero on images of {shape}; leave "
                    "it out, or use a decomposition that has one (gray has no colour to add to)"
                )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        return (yield from decompose(request, parts_of(self.parts), self.conditions))
