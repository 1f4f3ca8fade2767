"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from composer import UNCONDITIONAL, Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite_each, interval, within
from composer.authoring import answers, check_encodable
from composer.errors import shown

Scale = float | Sequence[float] | Tensor
"""A number, or one a seed (S,)."""


@dataclass(frozen=True, eq=False)
class CFG(Plugin):
    """Classifier-free guidance: uncond + scale * (cond - uncond).

    The coefficients sum to one, so the law of composition holds; the learned variance is the
    conditional branch's. Scale 1 is the conditional model and scale 0 the unconditional one; each
    needs one row. Where nothing decides a condition, both branches are the unconditional one, and
    there is nothing to guide towards. CFG commutes with anagrams: inside one, where all views share
    the interval, or around it, the image is the same.

    Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv 2207.12598; the interval is
    Kynkaanniemi et al. 2024, "Applying Guidance in a Limited Interval", arXiv 2404.07724.

    Args:
        scale: the guidance scale, any finite number; or a list or tensor (S,) of one per seed,
            which needs two rows per image at any scale.
        interval: noise levels sigma / (alpha + sigma), 0 (image) to 1 (noise), within which to
            guide; outside, the scale is 1.
        negative: a condition to move away from, in place of none: a negative prompt.
    """

    one_a_seed = ("scale",)

    scale: Scale
    interval: Sequence[float] = (0.0, 1.0)
    negative: Any = None

    def __post_init__(self) -> None:
        finite_each(self.scale, "CFG: scale")
        interval(self.interval, "CFG: interval")

    @hookimpl
    def check(self, stack: Stack) -> None:
        if self.negative is not None:
            check_encodable(stack.backend, self.negative, "CFG: negative")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        against = UNCONDITIONAL if self.negative is None else self.negative
        other = request.replace(condition=against)
        return (yield from away(request, other, self.scale, self.interval))


def away(
    request: Request, other: Request, scale: Scale, interval: Sequence[float]
) -> Generator[list[Request], list[Estimate], Estimate]:
    """Guide ``request`` away from ``other``, within an interval of noise levels.

    Outside the interval the scale is 1. A branch of weight 0 costs no row.
    """
    scale = request.each(scale)
    plain = not isinstance(scale, Tensor)  # to compare a tensor would wait for the device
    if (plain and scale == 1) or not within(request.noise_level, interval):
        return (yield [request])[0]
    if plain and scale == 0:
        return (yield [other])[0]
    cond, uncond = yield [request, other]
    return guide(uncond, cond, scale)


def guide(uncond: Estimate, cond: Estimate, scale: float | Tensor) -> Estimate:
    """uncond + scale * (cond - uncond), with cond's learned variance."""
    return cond.lerp(uncond, 1 - scale)


def require_guidance(guidance: object, owner: str) -> None:
    """Raise a TypeError unless ``guidance`` is a plugin that guides."""
    if isinstance(guidance, type) or not answers(guidance, "noise_estimate"):
        raise TypeError(
            f"{owner}: guidance must be a plugin such as CFG(7.5), got {shown(guidance)}."
        )
