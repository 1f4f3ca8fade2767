"""Visual anagrams: one image that reads differently through several views."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from composer import Estimate, Request, Sampler, Transform, get_transform, hookimpl
from composer.arguments import choice, finite_list
from composer.requests import total
from composer.transforms import check_view

Reduction = Literal["mean", "weighted", "alternate"]


@dataclass(frozen=True, eq=False)
class Anagram:
    """Denoise several views of one image at once, each with its own condition.

    With orthogonal views V_i and weights w_i that sum to one, the estimate at x is
    sum_i w_i V_i^-1 f(V_i x, condition_i); the learned variance is the mean over the views.

    Geng, Park & Owens 2024, "Visual Anagrams", arXiv 2311.17919.

    Args:
        views: {transform: condition}; transforms by name or as Transform objects. A condition may
            be a plugin, such as a Hybrid seen in this view only. All None leaves the condition to
            the call.
        reduction: "mean" takes equal weights, "weighted" those given, "alternate" asks at step i
            view i mod N only.
        weights: one a view, summing to one; for "weighted". A view of weight 0 is not asked.
    """

    views: Mapping[str | Transform, Any] | Mapping[str, Any] | Mapping[Transform, Any]
    reduction: Reduction = "mean"
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        # Looking the views up refuses an unknown name here, not at the first step.
        if not isinstance(self.views, Mapping) or not self.transforms:
            raise TypeError(
                "Anagram: views must be a dict such as {'identity': 6, 'rotate_180': 9}, "
                f"got {self.views!r}"
            )
        choice(self.reduction, "Anagram: reduction", _REDUCTIONS)
        if (self.weights is not None) != (self.reduction == "weighted"):
            raise ValueError("Anagram: weights go with reduction='weighted', and only with it")
        if self.weights is not None:
            weights = finite_list(self.weights, "Anagram: weights")
            if len(weights) != len(self.views) or not math.isclose(sum(weights), 1.0):
                raise ValueError(
                    f"Anagram: weights must be {len(self.views)} numbers that sum to 1, "
                    f"got {weights}"
                )

    @property
    def conditions(self) -> tuple[Any, ...]:
        return tuple(self.views.values())

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        """The views, names looked up."""
        return tuple(get_transform(v) if isinstance(v, str) else v for v in self.views)

    @hookimpl
    def check(self, sampler: Sampler) -> None:
        for view in self.transforms:
            check_view(view, sampler.backend.shape, "Anagram")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        weights = _REDUCTIONS[self.reduction](self, request.step)
        chosen = [
            (view, condition, weight)
            for view, condition, weight in zip(
                self.transforms, self.conditions, weights, strict=True
            )
            if weight != 0
        ]
        answers = yield [request.seen_through(view).fill(cond) for view, cond, _ in chosen]
        return total(
            request,
            [
                weight * answer.seen_back(view)
                for answer, (view, _, weight) in zip(answers, chosen, strict=True)
            ],
        )


def _mean(anagram: Anagram, step: int) -> Sequence[float]:
    return [1 / len(anagram.views)] * len(anagram.views)


def _weighted(anagram: Anagram, step: int) -> Sequence[float]:
    return anagram.weights or ()


def _alternate(anagram: Anagram, step: int) -> Sequence[float]:
    turn = step % len(anagram.views)
    return [float(i == turn) for i in range(len(anagram.views))]


_REDUCTIONS: dict[str, Callable[[Anagram, int], Sequence[float]]] = {
    "mean": _mean,
    "weighted": _weighted,
    "alternate": _alternate,
}
