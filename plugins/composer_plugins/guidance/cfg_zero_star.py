"""CFG-Zero*: guidance with the unconditional velocity at its best length, and a still start."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import UNCONDITIONAL, Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite_each, integer, interval, within
from composer.authoring import noise_scale_of
from composer.errors import shown
from composer.predictions import SAMPLE
from composer_plugins.guidance.cfg import Scale


@dataclass(frozen=True, eq=False)
class CFGZeroStar(Plugin):
    """Guidance of velocities, the unconditional one scaled to fit the conditional one.

    With v_c and v_u the velocities x_0 - k noise (k the width of the schedule's noise, usually 1),
    two vectors of each image,

        s = v_c . v_u / v_u . v_u,      v = s v_u + scale * (v_c - s v_u).

    s v_u is the multiple of v_u that is nearest to v_c. In the first ``zero_steps`` steps v is 0
    and no row is needed: a flow stays where it is, because an untrained velocity would lead it
    astray. A model that is well trained, or takes few steps, does better with zero_steps = 0.

    It leaves the law of composition on purpose: s depends on the image. The velocity is the same
    for every prediction type of the model, and so is the image. Inside an anagram (after it in the
    list) it fits within each view; around one, the mean of the views.

    Fan et al. 2025, "CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models",
    arXiv 2503.18886.

    Args:
        scale: the guidance scale, as for CFG; or one a seed.
        zero_steps: the number of steps at the beginning without a velocity; the paper takes 4 % of
            the steps.
        interval: noise levels within which to guide, as for CFG.
    """

    obeys_law = False
    predicts = SAMPLE
    one_a_seed = ("scale",)

    scale: Scale
    zero_steps: int = 1
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        finite_each(self.scale, "CFGZeroStar: scale")
        integer(self.zero_steps, "CFGZeroStar: zero_steps", least=0)
        interval(self.interval, "CFGZeroStar: interval")

    @hookimpl
    def check(self, stack: Stack) -> None:
        if self.zero_steps >= (steps := len(stack.times) - 1):
            raise ValueError(
                f"CFGZeroStar: zero_steps must be below the number of steps, {steps}, got "
                f"{shown(self.zero_steps)}. Otherwise the model is never asked."
            )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        width, scale = noise_scale_of(request.backend), request.each(self.scale)
        if request.t_next is not None and request.step < self.zero_steps:  # within a run
            zero = torch.zeros_like(request.x)
            return moving(request.answer(zero, None, SAMPLE), zero, width)
        alone = not isinstance(scale, Tensor) and scale == 1
        if alone or not within(request.noise_level, self.interval):
            plain = (yield [request])[0]
            return plain.replace(prediction=plain.x0, kind=SAMPLE)
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        towards, away = (e.x0 - width * e.noise for e in (cond, uncond))
        fitted = fit(away, towards)
        return moving(cond, fitted + scale * (towards - fitted), width)


def moving(estimate: Estimate, velocity: Tensor, width: float) -> Estimate:
    """The estimate at the same x with the velocity x_0 - width * noise (B, C, H, W)."""
    alpha, sigma = estimate.schedule.at(estimate.t)
    x0 = (width * estimate.x + sigma * velocity) / (width * alpha + sigma)
    return estimate.replace(prediction=x0, kind=SAMPLE)


def fit(vector: Tensor, goal: Tensor) -> Tensor:
    """The multiple of each image (B, C, H, W) of ``vector`` that is nearest to ``goal``."""
    whole = (1, 2, 3)
    square = vector.square().sum(whole, keepdim=True)
    share = (vector * goal).sum(whole, keepdim=True) / square
    return torch.where(square > 0, share, 0.0) * vector
