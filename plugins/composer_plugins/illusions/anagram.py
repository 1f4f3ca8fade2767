"""Visual anagrams: one image that reads differently through several views."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

from composer import Estimate, Plugin, Request, Stack, Transform, get_transform, hookimpl
from composer.arguments import choice, finite, intervals, within
from composer.authoring import answers, check_view, combine, resized
from composer.errors import owned, shown
from composer_plugins.illusions.reductions import (
    REDUCTIONS,
    Rows,
    interpolate,
    rectified,
    weight_rows,
)

Reduction = Literal["mean", "weighted", "alternate"]


@dataclass(frozen=True, eq=False)
class Anagram(Plugin):
    """Denoise several views of one image at once, each with its own condition.

    With orthogonal views V_i and weights w_i that sum to one, the estimate at x is
    sum_i w_i V_i^-1 f(V_i x, condition_i); the learned variance is the mean over the views.

    Geng, Park & Owens 2024, "Visual Anagrams", arXiv 2311.17919.

    Args:
        views: {transform: condition}; transforms by name or as Transform objects. A condition may
            be a plugin, such as a Hybrid seen in this view only. All None leaves the condition to
            the call.
        reduction: "mean" takes equal weights, "weighted" those given, "alternate" one view per
            step, in turn.
        weights: for "weighted": one per view, summing to one; or rows of such weights, spread
            evenly over the noise level from noise to image and interpolated. A view of weight 0
            costs no row.
        intervals: for each view the noise levels (low, high) within [0, 1], as CFG's interval, at
            which it takes part; None for all views always.
        rectification: a power in [0, 1] of the correction for the noise that a mean shrinks: 0
            keeps the estimate as it is; 1 gives its noise the length of the views' noises.
    """

    needs_pixels = True
    over_latents = "LatentAnagram"

    views: Mapping[str | Transform, Any] | Mapping[str, Any] | Mapping[Transform, Any]
    reduction: Reduction = "mean"
    weights: Sequence[float] | Sequence[Sequence[float]] | None = None
    intervals: Sequence[Sequence[float]] | None = None
    rectification: float = 0.0

    def __post_init__(self) -> None:
        # Look the views up now, so that an unknown name raises here, not at the first step.
        if not isinstance(self.views, Mapping) or not self.transforms:
            raise TypeError(
                "Anagram: views must be a dict such as {'identity': 6, 'rotate_180': 9}, "
                f"got {shown(self.views)}."
            )
        choice(self.reduction, "Anagram: reduction", REDUCTIONS)
        if not 0 <= finite(self.rectification, "Anagram: rectification") <= 1:
            raise ValueError(
                f"Anagram: rectification must be in [0, 1], got {shown(self.rectification)}."
            )
        if self.rectification and self.reduction == "alternate":
            raise ValueError("Anagram: rectification must be 0 with reduction='alternate'.")
        if (self.weights is None) == (self.reduction == "weighted"):
            raise ValueError(
                "Anagram: weights must be given if and only if reduction is 'weighted'."
            )
        _ = self.rows  # raises for wrong weights
        intervals(self.intervals, "Anagram: intervals", len(self.views))

    @property
    def conditions(self) -> tuple[Any, ...]:
        return tuple(self.views.values())

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        """The views, names looked up."""
        with owned("Anagram"):
            return tuple(get_transform(v) for v in self.views)

    @cached_property
    def rows(self) -> Rows:
        """The checked weights over the run; equal weights by default."""
        count = len(self.views)
        weights = [1 / count] * count if self.weights is None else self.weights
        return weight_rows(weights, count, "Anagram")

    @property
    def alternates(self) -> bool:
        return self.reduction == "alternate"

    def resized(self, height: int, width: int) -> Self:
        size = height, width
        views = {resized(v, *size): resized(c, *size) for v, c in self.views.items()}
        return replace(self, views=views)

    @hookimpl
    def check(self, stack: Stack) -> None:
        for view in self.transforms:
            check_view(view, stack.backend, "Anagram")
        if any(answers(plugin, "start") for plugin in stack.plugins):
            return  # the plan is not known yet; noise_estimate checks again
        for step, time in enumerate(stack.times[:-1]):
            self._require_a_view(stack.backend.schedule.noise_level(time), step)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        weights = self._require_a_view(request.noise_level, request.step)
        asked = [
            (view, condition, weight)
            for view, condition, weight in zip(
                self.transforms, self.conditions, weights, strict=True
            )
            if weight != 0
        ]
        answers = yield [request.seen_through(view).fill(cond) for view, cond, _ in asked]
        seen = [a.seen_back(view) for a, (view, _, _) in zip(answers, asked, strict=True)]
        shares = [weight for _, _, weight in asked]
        estimate = combine(shares, seen)
        if self.rectification == 0:
            return estimate
        return rectified(estimate, seen, shares, self.rectification)

    def _require_a_view(self, noise_level: float, step: int) -> list[float]:
        weights = self.weights_at(noise_level, step)
        if not any(weights):
            raise ValueError(
                f"Anagram: the weights of the views that take part at the noise level "
                f"{noise_level:.3g} (step {step}) must have a sum above 0. Widen intervals or "
                "change weights."
            )
        return weights

    def weights_at(self, noise_level: float, step: int) -> list[float]:
        """The weight of each view at a noise level; all 0 if none takes part."""
        count = len(self.views)
        always = [(0.0, 1.0)] * count
        ends = enumerate(self.intervals or always)
        active = [i for i, interval in ends if within(noise_level, interval)]
        if not active:
            return [0.0] * count
        return REDUCTIONS[self.reduction](active, step, interpolate(self.rows, 1 - noise_level))
