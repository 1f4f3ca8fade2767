"""AND and NOT of several conditions."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from composer import UNCONDITIONAL, Estimate, Plugin, Request, hookimpl
from composer.arguments import finite, intervals, within
from composer.authoring import combine, resized
from composer.errors import shown

ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Conjunction(Plugin):
    """Several conditions at once: f(x) + sum_i w_i (f(x, c_i) - f(x)), f(x) unconditional.

    A positive weight moves towards a condition (AND), a negative one away from it (NOT). One
    condition of weight w is classifier-free guidance of scale w. The coefficients sum to one, so
    the law of composition holds; the learned variance is that of the condition with the largest
    weight.

    Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models",
    arXiv 2206.01714.

    Args:
        weights: {condition: weight}. A weight of 0 costs no row.
        intervals: for each condition the noise levels (low, high) within [0, 1], as CFG's interval,
            at which it takes part; None for all conditions always.
    """

    weights: Mapping[Any, float]
    intervals: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise TypeError(
                "Conjunction: weights must be a dict such as {3: 4.0, 8: -1.0}, "
                f"got {shown(self.weights)}."
            )
        for condition, weight in self.weights.items():
            finite(weight, f"Conjunction: the weight of {condition!r}")
            if condition is None:
                raise TypeError("Conjunction: a condition must not be None. Name what to make.")

        intervals(self.intervals, "Conjunction: intervals", len(self.weights))

    @property
    def conditions(self) -> tuple[Any, ...]:
        return tuple(self.weights)

    def resized(self, height: int, width: int) -> Self:
        weights = {resized(c, height, width): w for c, w in self.weights.items()}
        return replace(self, weights=weights)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        ends = self.intervals or [(0.0, 1.0)] * len(self.weights)
        weights = {
            condition: weight
            for (condition, weight), interval in zip(self.weights.items(), ends, strict=True)
            if weight != 0 and within(request.noise_level, interval)
        }
        asked = [*weights]
        rest = 1 - math.fsum(weights.values())
        # A coefficient that differs from 0 by rounding only must not cost a row.
        if abs(rest) > ROUNDING:
            weights = {**weights, UNCONDITIONAL: weights.get(UNCONDITIONAL, 0.0) + rest}
        answers = yield [request.fill(condition) for condition in weights]
        # The learned variance comes from the heaviest condition, not the unconditional branch.
        heaviest = max(range(len(asked)), key=lambda i: weights[asked[i]], default=0)
        return combine([*weights.values()], answers, variance=answers[heaviest])
