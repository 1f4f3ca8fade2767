"""Guidance that asks the unconditional model at some steps and reuses its direction at others."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from composer import UNCONDITIONAL, Estimate, Plugin, Request, hookimpl
from composer.arguments import finite, integer, interval, within
from composer_plugins.guidance.cfg import guide


@dataclass(frozen=True, eq=False)
class ReusedGuidance(Plugin):
    """Classifier-free guidance whose direction is computed at every ``every``-th step.

    At these steps it is :class:`CFG`, and keeps d = x_0(condition) - x_0(unconditional). At the
    others it adds (scale - 1) d to the clean image of the conditional model, at one row. The
    direction is kept in clean images, where it is finite on the whole path and changes slowly, so
    the image is the same whichever prediction type the model has.

    Each view and condition keeps its own direction. It leaves the law of composition at the steps
    between, where a direction of another x is added; every=1 is CFG.

    Dinh et al. 2024, "Compress Guidance in Conditional Diffusion Sampling", arXiv 2408.11194; Lv et
    al. 2024, "FasterCache", arXiv 2410.19355, section 3.3.

    Args:
        scale: the guidance scale.
        every: steps from one computation of the direction to the next.
        interval: noise levels within which to guide, as CFG's.
    """

    obeys_law = False

    scale: float
    every: int = 2
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        finite(self.scale, "ReusedGuidance: scale")
        integer(self.every, "ReusedGuidance: every", least=1)
        interval(self.interval, "ReusedGuidance: interval")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        if self.scale == 1 or not within(request.noise_level, self.interval):
            return (yield [request])[0]
        key = self, request.place
        kept = request.carried.get(key)
        if kept is not None and request.step % self.every:
            cond = (yield [request])[0]
            return cond.with_x0(cond.x0 + (self.scale - 1) * kept)
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        request.carried[key] = (cond.x0 - uncond.x0).detach()
        return guide(uncond, cond, self.scale)
