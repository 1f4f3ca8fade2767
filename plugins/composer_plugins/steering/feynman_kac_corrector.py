"""Feynman-Kac correctors: weights that make guidance, products and annealing unbiased."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from composer import UNCONDITIONAL, Estimate, Request, Stack, State, Transform, hookimpl
from composer.arguments import finite_list, positive
from composer.authoring import add_log_weights, answers, combine
from composer.predictions import mixed
from composer_plugins.steering.densities import (
    OverReadings,
    Readings,
    asked,
    parsed,
    reverse_of,
    squared,
)
from composer_plugins.steering.feynman_kac import FeynmanKac

ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class FeynmanKacCorrector(OverReadings):
    """Sample about prod_i q_i^p_i, with q_i the density of a condition, or of a view's condition.

    ==============  ====================================  ============================
    guidance        [None, UNCONDITIONAL], (s, 1 - s)     q(x | c)^s q(x)^(1 - s)
    product         [3, 8, UNCONDITIONAL], (1, 1, -1)     q(x | 3) q(x | 8) / q(x)
    annealing       [None], (2,)                          q(x | c)^2
    anagram         {"identity": 6, "flip": 9}, (.5, .5)  sqrt(q(x | 6) q(flip x | 9))
    ==============  ====================================  ============================

    The estimate is sum_i p_i f_i(x), which by itself samples another density: the power or product
    of noised densities is not the noised power or product. So each step weighs its images by

        exp(c (|sum_i p_i x0_i|^2 - sum_i p_i |x0_i|^2) / 2),

    c = a^2 / v for a step N(a x_0 + b x, v I). FeynmanKac() in the same stack resamples by their
    product; without it there are no weights. In the limit of short steps they are the paper's,
    exp(g^2 (|sum p_i s_i|^2 - sum p_i |s_i|^2) dt / 2) for the scores s_i. With many candidates and
    steps the images follow the density itself. Weights differ more the more pixels there are, so
    for whole images use many candidates and small powers.

    It takes the steps itself, because steps and weights belong together; the solver plans their
    times. A step is exact for data of standard deviation ``data_std``, and adds no noise at the
    end. It must be the outermost plugin that estimates noise, and its powers those of plain
    conditions: a guided "density" after it in the list has no weight.

    Powers that sum to one obey the law of composition. Otherwise, the missing power is that of
    N(0, width^2 I), which is nearly flat over images and keeps the path that begins at pure noise.

    Skreta et al. 2025, "Feynman-Kac Correctors in Diffusion: Annealing, Guidance, and Product of
    Experts", arXiv 2503.02819, propositions 3.1 to 3.3.

    Args:
        readings: conditions, of which None leaves the choice to the call, or {view: condition}.
        powers: p_i, one per reading. A power of 0 costs no row.
        data_std: the standard deviation of a pixel of the images of one condition, above 0.
        width: of the Gaussian that has the missing power, above 0.
    """

    weighs = True
    unique = "take the steps"

    readings: Readings
    powers: Sequence[float]
    data_std: float = 0.5
    width: float = 4.0

    def __post_init__(self) -> None:
        pairs = parsed(self.readings, "FeynmanKacCorrector")
        powers = finite_list(self.powers, "FeynmanKacCorrector: powers")
        if len(powers) != len(pairs) or not any(powers):
            raise ValueError(
                f"FeynmanKacCorrector: powers must be {len(pairs)}, one per reading and not all 0, "
                f"got {powers}."
            )
        positive(self.data_std, "FeynmanKacCorrector: data_std")
        positive(self.width, "FeynmanKacCorrector: width")

    @cached_property
    def terms(self) -> tuple[tuple[Transform, Any, float], ...]:
        """(view, condition, power) of the readings whose power is not 0."""
        every = parsed(self.readings, "FeynmanKacCorrector")
        zipped = zip(every, self.powers, strict=True)
        return tuple((view, condition, power) for (view, condition), power in zipped if power != 0)

    @property
    def pairs(self) -> tuple[tuple[Transform, Any], ...]:
        """(view, condition) of the readings whose power is not 0."""
        return tuple((view, condition) for view, condition, _ in self.terms)

    @property
    def missing(self) -> float:
        """1 - sum_i p_i; 0 if they differ by rounding only."""
        rest = 1 - math.fsum(self.powers)
        return rest if abs(rest) > ROUNDING else 0.0

    @property
    def obeys_law(self) -> bool:
        return self.missing == 0

    @property
    def conditions(self) -> tuple[Any, ...]:
        """Those that it sets; UNCONDITIONAL it asks in place of any, as CFG does."""
        return tuple(c for _, c, _ in self.terms if c is not UNCONDITIONAL)

    @hookimpl
    def check(self, stack: Stack) -> None:
        super().check(stack)
        if [p for p in stack.plugins if answers(p, "noise_estimate")][:1] != [self]:
            raise ValueError(
                "FeynmanKacCorrector: it must be the outermost plugin that estimates noise. Put it "
                "before the others in the list of plugins."
            )
        if not any(isinstance(plugin, FeynmanKac) for plugin in stack.plugins):
            warnings.warn(
                "FeynmanKacCorrector: the stack has no FeynmanKac, so nothing resamples by its "
                "weights. Add FeynmanKac(particles=16).",
                stacklevel=2,
            )

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        terms = self.terms
        answers = yield [asked(request, view, condition) for view, condition, _ in terms]
        seen = [a.seen_back(view) for a, (view, _, _) in zip(answers, terms, strict=True)]
        powers = [power for _, _, power in terms]
        if self.missing:
            seen.append(self._flat(seen[0]))
            powers.append(self.missing)
        estimate = combine(powers, seen)
        if request.t_next is not None:  # within a run
            schedule = estimate.schedule
            step = reverse_of(schedule, request.t, request.t_next, self.data_std)
            growth = squared(estimate.x0)
            for power, one in zip(powers, seen, strict=True):
                growth = growth - power * squared(one.x0)
            add_log_weights(request, step.of_x0**2 / (2 * step.variance) * growth)
        return estimate

    def _flat(self, estimate: Estimate) -> Estimate:
        """The estimate at the same x of the model whose data are N(0, width^2 I)."""
        alpha, sigma = estimate.schedule.at(estimate.t)
        posterior = estimate.x / ((alpha * self.width) ** 2 + sigma**2)
        x0, noise = alpha * self.width**2 * posterior, sigma * posterior
        return estimate.replace(prediction=estimate.kind.target(x0, noise, alpha, sigma))

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        """Draw from the reverse transition that the weights stand for."""
        step = reverse_of(estimate.schedule, state.t, state.t_next, self.data_std)
        mean = mixed(step.of_x0, estimate.x0, step.of_x, estimate.x)
        _, sigma = estimate.schedule.at(state.t_next)
        return mean if sigma == 0 else mean.add_(state.randn(), alpha=math.sqrt(step.variance))
