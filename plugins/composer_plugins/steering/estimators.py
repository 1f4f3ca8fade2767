"""How the log densities of several readings change along the way of an image.

What all readings share has no effect on weights that sum to one, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from composer.schedules import Schedule
from composer_plugins.steering.densities import reverse_of, squared


@dataclass(frozen=True, eq=False)
class Place:
    """Where the images are, and what is known there.

    Args:
        x: (B, C, H, W), at the time t.
        x0: the clean image of each reading, (B, N, C, H, W).
        divergence: of each reading's flow (B, N), for :class:`ByDivergence`; None if not known.
        log_density: log q_i(x) + log p_i (B, N), up to a number that all readings share.
        weights: those that the readings got (B, N).
    """

    x: Tensor
    t: float
    schedule: Schedule
    x0: Tensor
    divergence: Tensor | None
    log_density: Tensor
    weights: Tensor

    def detached(self) -> Place:
        """Without a gradient: one that a plugin outside asks for is of this step alone."""
        return self._each(Tensor.detach)

    def rows(self, rows: Tensor) -> Place:
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Any) -> Place:
        divergence = None if self.divergence is None else change(self.divergence)
        named = {
            name: change(getattr(self, name)) for name in ("x", "x0", "log_density", "weights")
        }
        return replace(self, divergence=divergence, **named)


class Step(NamedTuple):
    """A step to of_x0 x_0 + of_x x_t, where the growth of log q_i has the slope ``slope`` x0_i."""

    of_x0: float
    of_x: float
    slope: float


class Estimator(Protocol):
    """How log densities change along the way; exact for Gaussians of deviation ``data_std``."""

    def step(self, here: Place, s: float) -> Step:
        """The solver's step to s, without its noise."""
        ...

    def ahead(self, here: Place, x: Tensor, s: float) -> Tensor:
        """The growth of the log densities (B, N) from here to (x, s), by what is known here."""
        ...

    def growth(self, past: Place, here: Place) -> Tensor:
        """The growth of the log densities (B, N) from one place to the next."""
        ...


@dataclass(frozen=True)
class Ito:
    """By log q_i(x_s | x_t) of the reverse SDE: Bayes' rule, see ``densities``."""

    data_std: float

    def step(self, here: Place, s: float) -> Step:
        reverse = reverse_of(here.schedule, here.t, s, self.data_std)
        return Step(reverse.of_x0, reverse.of_x, reverse.of_x0 / reverse.variance)

    def ahead(self, here: Place, x: Tensor, s: float) -> Tensor:
        reverse = reverse_of(here.schedule, here.t, s, self.data_std)
        mean = reverse.of_x0 * here.x0 + reverse.of_x * here.x[:, None]
        return -squared(x[:, None] - mean) / (2 * reverse.variance)

    def growth(self, past: Place, here: Place) -> Tensor:
        if not past.schedule.goes_back(here.t, past.t):
            raise ValueError(
                f"SuperDiff: the noise must fall from one estimate to the next, got t = "
                f"{past.t:g} and then {here.t:g}. Use one SuperDiff object for each place in a "
                "stack, and no plugin that jumps back to noise."
            )
        return self.ahead(past, here.x, here.t)


@dataclass(frozen=True)
class ByDivergence:
    """By the flow of each reading, whatever the solver does between two places.

    With u = x / (alpha + sigma), the noise level tau and v_i = noise_i - x0_i, mass moves along
    du / dtau = v_i, so

        d log q_i = grad log q_i . (du - v_i dtau) - div v_i dtau.

    About each place log q_i is taken for the Gaussian of deviation S = ``data_std`` that has this
    gradient, changed at the rate that the divergence says; the mean of the growth expected at the
    past place and that found at this one is exact to second order in du and dtau.
    """

    data_std: float

    def step(self, here: Place, s: float) -> Step:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = here.schedule.at(here.t), here.schedule.at(s)
        kept = sigma_s / sigma_t
        wide_t, wide_s = self._wide(alpha_t, sigma_t), self._wide(alpha_s, sigma_s)
        return Step(alpha_s - kept * alpha_t, kept, alpha_s / wide_s * wide_t / sigma_t**2)

    def ahead(self, here: Place, x: Tensor, s: float) -> Tensor:
        """With m the mean of the fitted Gaussians N(mu_i, S^2 I), and c_i = mu_i - m,

        log q_i = alpha (x - alpha m) . c_i / v - alpha^2 |c_i|^2 / 2v,  v = alpha^2 S^2 + sigma^2.
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = here.schedule.at(here.t), here.schedule.at(s)
        wide_t, wide_s = self._wide(alpha_t, sigma_t), self._wide(alpha_s, sigma_s)
        x0 = here.x0.mean(1)
        centred = wide_t / sigma_t**2 * (here.x0 - x0[:, None])
        noise = (here.x - alpha_t * x0) / sigma_t
        away = x - alpha_s * x0 + alpha_s * alpha_t * self.data_std**2 / sigma_t * noise
        moved = alpha_s / wide_s * away - alpha_t / sigma_t * noise
        growth = (moved[:, None] * centred).sum((-3, -2, -1))
        growth = growth - (alpha_s**2 / wide_s - alpha_t**2 / wide_t) / 2 * squared(centred)
        change = here.schedule.noise_level(s) - here.schedule.noise_level(here.t)
        return growth if here.divergence is None else growth - change * here.divergence

    def growth(self, past: Place, here: Place) -> Tensor:
        return (self.ahead(past, here.x, here.t) - self.ahead(here, past.x, past.t)) / 2

    def _wide(self, alpha: float, sigma: float) -> float:
        return (alpha * self.data_std) ** 2 + sigma**2
