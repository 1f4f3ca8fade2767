"""DAPS: sample the clean image that explains a measurement, then noise it afresh."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, State, hookimpl
from composer.arguments import integer, positive
from composer.authoring import in_pixels, require_coder, short_repr
from composer.images import ImageLike, hold_image, to_tensor
from composer.predictions import mixed
from composer_plugins.editing.measurements import (
    Measure,
    check_measurement,
    explained,
    measure_of,
    require_measure,
    spread_at,
)
from composer_plugins.editing.operators import Operator, measured_at


@dataclass(frozen=True, eq=False, repr=False)
class DAPS(Plugin):
    """At each step draw a clean image given x and the measurement, and noise it to the next level.

    Given x alone, the clean image is taken as N(x_0, r^2), with x_0 the estimate, or after
    ``ode_steps`` the end of an ODE, and 1 / r^2 = alpha^2 / sigma^2 + 1 / spread^2. The measurement
    is y = A(x) + noise * n. With n', n'' ~ N(0, I), the minimum over x of

        |y + noise n' - A(x)|^2 / noise^2 + |x - x_0 - r n''|^2 / r^2

    is a draw of the product of both, exactly so for a linear A; the paper walks by Langevin's
    method instead. Fresh noise at every step lets later steps correct earlier ones, which a
    nonlinear A needs. Over Gaussian data of the given spread the result is the exact posterior. It
    takes the solver's place. A latent model draws latents, which are decoded to be measured.

    Zhang et al. 2024, "Decoupled Annealing Posterior Sampling", arXiv 2407.01521, algorithm 1.

    Args:
        measurement: y, a tensor (C', H', W') or (B, C', H', W'); one, or one per seed.
        operator: A, such as KnownPixels(mask), BlockMean(4), or a function of images (B, C, H, W).
        noise: standard deviation of the measurement's noise, above 0.
        spread: standard deviation of the data, above 0.
        ode_steps: steps of Euler's method from x to x_0, 1 to 1000, each an evaluation; 1 is the
            estimate itself.
        rounds: of Gauss and Newton's method, 1 to 1000; 1 is exact for a linear A.
    """

    __repr__ = short_repr

    holds_image = True
    unique = "draw the clean image"

    measurement: ImageLike
    operator: Operator | Measure
    noise: float = 0.05
    spread: float = 0.5
    ode_steps: int = 1
    rounds: int = 1

    def __post_init__(self) -> None:
        held = hold_image(self.measurement, "DAPS: measurement")
        object.__setattr__(self, "measurement", held)
        require_measure(self.operator, "DAPS")
        positive(self.noise, "DAPS: noise")
        positive(self.spread, "DAPS: spread")
        integer(self.ode_steps, "DAPS: ode_steps", least=1, most=1000)
        integer(self.rounds, "DAPS: rounds", least=1, most=1000)

    def resized(self, height: int, width: int) -> Self:
        """The same measurement of images of another size, by the operator's ``at_size``."""
        operator, y = measured_at(self.operator, self._y, height, width, "DAPS")
        if operator is self.operator:
            return self
        return replace(self, measurement=y, operator=operator)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "DAPS")
        check_measurement(self.operator, self._y, stack.backend, "DAPS")

    @hookimpl
    def step(
        self, state: State, estimate: Estimate
    ) -> Generator[list[Request], list[Estimate], Tensor] | None:
        return None if state.t_next == state.t else self._drawn(state, estimate)

    def _drawn(
        self, state: State, estimate: Estimate
    ) -> Generator[list[Request], list[Estimate], Tensor]:
        schedule, here = estimate.schedule, estimate
        level = schedule.noise_level(estimate.t)
        for k in range(1, self.ode_steps):
            t = schedule.time_at(level * (1 - k / self.ode_steps))
            alpha, sigma = schedule.at(t)
            (here,) = yield [state.request(mixed(alpha, here.x0, sigma, here.noise), t)]
        r = spread_at(schedule, estimate.t, self.spread)
        y = state.each(self._y.to(estimate.x), "DAPS")
        y = y.expand(len(estimate.x), *y.shape[1:])
        y = y + self.noise * state.randn(tuple(y.shape[1:]))
        x0 = mixed(1, here.x0, r, state.randn())
        ratio = (self.noise / r) ** 2
        explaining = partial(
            explained, y=y, measure=measure_of(self.operator), ratio=ratio, rounds=self.rounds
        )
        x0 = in_pixels(state.backend, explaining, x0)
        alpha, sigma = schedule.at(state.t_next)
        return mixed(alpha, x0, sigma, state.randn()) if sigma > 0 else x0

    @cached_property
    def _y(self) -> Tensor:
        """(B, C', H', W')."""
        return to_tensor(self.measurement)
