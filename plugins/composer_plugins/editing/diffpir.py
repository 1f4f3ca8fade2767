"""DiffPIR: restoration from noisy and nonlinear measurements."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, State, hookimpl
from composer.arguments import finite, integer, positive
from composer.authoring import in_pixels, require_coder, short_repr
from composer.images import ImageLike, hold_image, to_tensor
from composer.predictions import mixed
from composer_plugins.editing.measurements import (
    Measure,
    check_measurement,
    explained,
    measure_of,
    of_rows,
    require_measure,
    spread_at,
)
from composer_plugins.editing.operators import Operator, measured_at


@dataclass(frozen=True, eq=False, repr=False)
class DiffPIR(Plugin):
    """Make every estimated clean image explain a noisy measurement y = A(x) + noise * n,

        x_0 <- argmin_x |y - A(x)|^2 / noise^2 + weight |x - x_0|^2 / r^2,

    a compromise of the measurement and the model that trusts the model more the nearer the image
    is. r = sigma / alpha, as in the paper; with ``spread``, the standard deviation of the data,
    1 / r^2 = alpha^2 / sigma^2 + 1 / spread^2. Over Gaussian data of that spread and weight 1 this
    is the exact posterior mean, and an ODE solver samples the exact posterior. The noise is the
    rest of x; each step replaces the share ``renewal`` of its variance by fresh noise.

    Without noise it is DDNM, in which A must be linear and have a pseudoinverse. Here A is any
    function of images that torch differentiates. It is outermost wherever it stands in the list,
    and leaves the law on purpose. A latent model's x_0 is decoded, changed in pixels and encoded.

    Zhu et al. 2023, "Denoising Diffusion Models for Plug-and-Play Image Restoration",
    arXiv 2305.08995, algorithm 1 (weight is lambda, renewal zeta).

    Args:
        measurement: y, a tensor (C', H', W') or (B, C', H', W'); one, or one per seed.
        operator: A, such as KnownPixels(mask), BlockMean(4), or a function of images (B, C, H, W).
        noise: standard deviation of the measurement's noise, at least 0.
        weight: of the model, above 0.
        spread: standard deviation of the data; infinity for the paper's rule.
        renewal: in [0, 1]; 0 leaves the step to the solver.
        rounds: of Gauss and Newton's method, 1 to 1000; 1 is exact for a linear A.
    """

    __repr__ = short_repr

    obeys_law = False
    holds_image = True
    unique = "project the clean image"

    measurement: ImageLike
    operator: Operator | Measure
    noise: float = 0.05
    weight: float = 1.0
    spread: float = math.inf
    renewal: float = 0.0
    rounds: int = 1

    def __post_init__(self) -> None:
        held = hold_image(self.measurement, "DiffPIR: measurement")
        object.__setattr__(self, "measurement", held)
        require_measure(self.operator, "DiffPIR")
        if finite(self.noise, "DiffPIR: noise") < 0:
            raise ValueError(f"DiffPIR: noise must be at least 0, got {self.noise}.")
        positive(self.weight, "DiffPIR: weight")
        if self.spread != math.inf:
            positive(self.spread, "DiffPIR: spread")
        if not 0 <= finite(self.renewal, "DiffPIR: renewal") <= 1:
            raise ValueError(f"DiffPIR: renewal must be in [0, 1], got {self.renewal}.")
        integer(self.rounds, "DiffPIR: rounds", least=1, most=1000)

    def resized(self, height: int, width: int) -> Self:
        """The same measurement of images of another size, by the operator's ``at_size``."""
        operator, y = measured_at(self.operator, self._y, height, width, "DiffPIR")
        if operator is self.operator:
            return self
        return replace(self, measurement=y, operator=operator)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "DiffPIR")
        check_measurement(self.operator, self._y, stack.backend, "DiffPIR")

    @hookimpl(tryfirst=True)  # outermost, on the combined estimate of views and guidance
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        (estimate,) = yield [request]
        y = of_rows(self._y.to(request.x), request)
        r = spread_at(estimate.schedule, estimate.t, self.spread)
        ratio = self.weight * (self.noise / r) ** 2
        explaining = partial(
            explained, y=y, measure=measure_of(self.operator), ratio=ratio, rounds=self.rounds
        )
        return estimate.with_x0(in_pixels(request.backend, explaining, estimate.x0))

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor | None:
        if self.renewal == 0 or state.t_next == state.t:
            return None
        alpha, sigma = estimate.schedule.at(state.t_next)
        x = mixed(alpha, estimate.x0, sigma * math.sqrt(1 - self.renewal), estimate.noise)
        return x.add_(state.randn(), alpha=sigma * math.sqrt(self.renewal))

    @cached_property
    def _y(self) -> Tensor:
        """(B, C', H', W')."""
        return to_tensor(self.measurement)
