"""Tangential guidance: guidance without the part of the unconditional answer that misleads."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import UNCONDITIONAL, Estimate, Plugin, Request, hookimpl
from composer.arguments import finite_each, interval, within
from composer.authoring import combine
from composer_plugins.guidance.cfg import Scale, guide


@dataclass(frozen=True, eq=False)
class TCFG(Plugin):
    """Guidance in which the unconditional prediction keeps the direction it shares with the other.

    Of the conditional c and the unconditional u, two vectors of each image, let d be the direction
    in which they agree most: the first right singular vector of the matrix of rows c and u. Then

        u' = (u . d) d,      prediction = u' + scale * (c - u').

    In closed form u' = sin(a) (cos(a) c + sin(a) u), with tan(2 a) = 2 c . u / (c . c - u . u). It
    needs the rows of CFG.

    It leaves the law of composition on purpose, and works on the prediction of the model itself, as
    the paper does: on the noise of Stable Diffusion, on the velocity of a flow. So its image
    depends on the model's prediction type. Inside an anagram (after it in the list) it acts within
    each view; around one, on the mean of the views.

    Kwon et al. 2025, "TCFG: Tangential Damping Classifier-free Guidance", arXiv 2503.18137.

    Args:
        scale: the guidance scale, as for CFG; or one a seed.
        interval: noise levels within which to guide, as for CFG.
    """

    obeys_law = False
    one_a_seed = ("scale",)

    scale: Scale
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        finite_each(self.scale, "TCFG: scale")
        interval(self.interval, "TCFG: interval")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        scale = request.each(self.scale)
        alone = not isinstance(scale, Tensor) and scale == 1
        if alone or not within(request.noise_level, self.interval):
            return (yield [request])[0]
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        return guide(tangential(uncond, cond), cond, scale)


def tangential(uncond: Estimate, cond: Estimate) -> Estimate:
    """``uncond`` along the direction that it shares with ``cond``, within each image."""
    c, u = cond.prediction, uncond.prediction
    whole = (1, 2, 3)
    along, across = (c * u).sum(whole, keepdim=True), (c * c - u * u).sum(whole, keepdim=True)
    angle = torch.atan2(2 * along, across) / 2
    return combine((angle.sin() * angle.cos(), angle.sin().square()), (cond, uncond))
