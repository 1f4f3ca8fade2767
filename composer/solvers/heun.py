"""Heun's method, the trapezoidal rule of second order."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from composer.markers import hookimpl
from composer.predictions import mixed
from composer.protocols import Solver, State
from composer.requests import Estimate, Request


@dataclass(frozen=True)
class Heun(Solver):
    """Heun's method for the probability-flow ODE, two evaluations per step except the last.

    Division by alpha + sigma makes every path straight: with u = x / (alpha + sigma) and the noise
    level tau = sigma / (alpha + sigma), u = (1 - tau) x_0 + tau noise and du / dtau = noise - x_0,
    regular from pure noise to data. The method applies the trapezoidal rule to u; on a flow
    schedule u = x and tau = 1 - t. The last step is Euler's, as in Karras et al. 2022 (arXiv
    2206.00364, algorithm 1), because no model is defined at sigma = 0.
    """

    @hookimpl
    def step(
        self, state: State, estimate: Estimate
    ) -> Generator[list[Request], list[Estimate], Tensor]:
        schedule = estimate.schedule
        alpha, sigma = schedule.at(state.t_next)
        euler = mixed(alpha, estimate.x0, sigma, estimate.noise)
        if sigma == 0:
            return euler
        (ahead,) = yield [state.request(euler, state.t_next)]
        alpha_t, sigma_t = schedule.at(estimate.t)
        change = schedule.noise_level(state.t_next) - schedule.noise_level(estimate.t)
        slope = (_slope(estimate) + _slope(ahead)) / 2
        return (alpha + sigma) * (estimate.x / (alpha_t + sigma_t) + change * slope)


def _slope(estimate: Estimate) -> Tensor:
    """du / dtau = noise - x_0."""
    return estimate.noise - estimate.x0
