"""Autoguidance: guidance away from a weaker version of the model."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from composer import Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite_each, interval
from composer.authoring import models_of
from composer_plugins.guidance.cfg import Scale, away


@dataclass(frozen=True, eq=False)
class Autoguidance(Plugin):
    """Guidance away from a weaker model of the same condition: weak + scale * (strong - weak).

    The backend must hold the weaker model, such as an early checkpoint; see
    :class:`~composer_plugins.backends.with_weak.WithWeak`. One call evaluates both, one row
    each. The coefficients sum to one, so the law of composition holds, and with anagrams it
    commutes: in each view or around all, the image is the same. Scale 1 needs the strong model
    alone. It stacks with CFG, in either order.

    Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself", arXiv 2406.02507.

    Args:
        scale: 1 is the strong model; the paper's w. Or one a seed, as for CFG.
        interval: noise levels within which to guide, as for CFG.
        model: the weaker model's name among the backend's ``models``.
    """

    one_a_seed = ("scale",)

    scale: Scale
    interval: Sequence[float] = (0.0, 1.0)
    model: str = "weak"

    def __post_init__(self) -> None:
        finite_each(self.scale, "Autoguidance: scale")
        interval(self.interval, "Autoguidance: interval")

    @hookimpl
    def check(self, stack: Stack) -> None:
        if self.model not in models_of(stack.backend):
            raise ValueError(
                f"Autoguidance: {type(stack.backend).__name__} holds no model {self.model!r}. "
                "Use a backend that does, such as WithWeak(backend, weak)."
            )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        weak = request.replace(model=self.model)
        return (yield from away(request, weak, self.scale, self.interval))
