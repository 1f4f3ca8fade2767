"""AND and NOT of several conditions."""

from __future__ import annotations

import math
import operator
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from composer import UNCONDITIONAL, Estimate, Request, hookimpl
from composer.arguments import finite
from composer_plugins.resizing import resized

ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Conjunction:
    """Several conditions at once: f(x) + sum_i w_i (f(x, c_i) - f(x)), f(x) unconditional.

    A positive weight asks for a condition (AND), a negative one against it (NOT). One condition
    of weight w is classifier-free guidance of scale w. The coefficients sum to one, so the law of
    composition holds; the learned variance is that of the largest weight.

    Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models",
    arXiv 2206.01714.

    Args:
        weights: {condition: weight}. A weight of 0 is not asked.
    """

    weights: Mapping[Any, float]

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise TypeError(
                "Conjunction: weights must be a dict such as {3: 4.0, 8: -1.0}, "
                f"got {self.weights!r}"
            )
        for condition, weight in self.weights.items():
            finite(weight, f"Conjunction: the weight of {condition!r}")
            if condition is None:
                raise TypeError("Conjunction: None is no condition; name what to make")

    @property
    def conditions(self) -> tuple[Any, ...]:
        return tuple(self.weights)

    def resized(self, height: int, width: int) -> Conjunction:
        return Conjunction({resized(c, height, width): w for c, w in self.weights.items()})

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        weights = {c: w for c, w in self.weights.items() if w != 0}
        rest = 1 - math.fsum(weights.values())
        # A row for what rounding alone leaves over would be a row for nothing.
        if abs(rest) > ROUNDING:
            weights = {**weights, UNCONDITIONAL: weights.get(UNCONDITIONAL, 0.0) + rest}
        answers = yield [request.fill(condition) for condition in weights]
        summed = reduce(
            operator.add, (w * a for w, a in zip(weights.values(), answers, strict=True))
        )
        heaviest = max(range(len(answers)), key=[*weights.values()].__getitem__)
        return summed.replace(variance=answers[heaviest].variance)
