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

    A positive weight asks for a condition (AND), a negative one against it (NOT). One condition
    of weight w is classifier-free guidance of scale w. The coefficients sum to one, so the law of
    composition holds; the learned variance is that of the condition of the largest weight.

    Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models",
    arXiv 2206.01714.

    Args:
        weights: {condition: weight}. A weight of 0 is not asked.
        intervals: for each condition the noise levels (low, high) within [0, 1], as CFG's interval,
            at which it takes part; None for all conditions always.
    """

    weights: Mapping[Any, float]
    intervals: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise TypeError(
                "Conjunction: weights must be a dict such as {3: 4.0, 8: -1.0}, "
                f"got {shown(self.weights)}"
            )
        for condition, weight in self.weights.items():
            finite(weight, f"Conjunction: the weight of {condition!r}")
            if condition is None:
                raise TypeError("Conjunction: None is no condition; name what to make")

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
        # A row for what rounding alone leaves over would be a row for nothing.
        if abs(rest) > ROUNDING:
            weights = {**weights, UNCONDITIONAL: weights.get(UNCONDITIONAL, 0.0) + rest}
        answers = yield [request.fill(condition) for condition in weights]
        # What is left to the unconditional branch guides nothing, so its variance is not the one.
        heaviest = max(range(len(asked)), key=lambda i: weights[asked[i]], default=0)
        return combine([*weights.values()], answers, variance=answers[heaviest])
