"""Adams and Bashforth's multistep method: any order from one evaluation per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from composer import Estimate, Plugin, State, hookimpl
from composer.arguments import integer
from composer.schedules import Schedule
from composer_plugins.solvers.history import past_estimates


@dataclass(frozen=True)
class AdamsBashforth(Plugin):
    """Extrapolate the slope by a polynomial through the last ``order`` estimates and integrate it.

    Division by alpha + sigma makes every path straight, as for Heun: with u = x / (alpha + sigma)
    and the noise level tau = sigma / (alpha + sigma), du / dtau = noise - x_0. This slope is
    regular from pure noise to data, so steps at both ends have the full order; on a flow it is the
    model's own output. With tau_j the noise levels of the last estimates and h the change of tau,

        u_s = u_t + h sum_j w_j (noise_j - x_0j),    sum_j w_j (tau_j - tau_t)^m = h^m / (m + 1)

    for m = 0 ... order - 1. The first steps of a run, and those after a jump or a walk, have as
    many terms as there are estimates; order 1 is Euler. Over a smooth model order 3 is best from
    about 10 steps on. With fewer steps, strong guidance, or a network, whose slope is rougher, a
    high order overshoots: take 2.

    Hairer, Norsett & Wanner 1993, "Solving Ordinary Differential Equations I", section III.5;
    Zhang & Chen 2023 (arXiv 2204.13902) and k-diffusion's LMS use the same rule in other variables.

    Args:
        order: estimates per step, 1 to 8.
    """

    order: int = 3

    def __post_init__(self) -> None:
        integer(self.order, "AdamsBashforth: order", least=1, most=8)

    @property
    def multistep(self) -> bool:
        return self.order > 1

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        return schedule.times(num_steps)

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        past = past_estimates(state, self, estimate, self.order)
        schedule = estimate.schedule
        tau, tau_s = (schedule.noise_level(t) for t in (estimate.t, state.t_next))
        places = [(schedule.noise_level(e.t) - tau) / (tau_s - tau) for e in past]
        alpha, sigma = schedule.at(estimate.t)
        alpha_s, sigma_s = schedule.at(state.t_next)
        size = alpha_s + sigma_s
        x = (size / (alpha + sigma)) * estimate.x
        for weight, e in zip(_weights(places), past, strict=True):
            x.add_(e.noise - e.x0, alpha=size * (tau_s - tau) * weight)
        return x


def _weights(places: Sequence[float]) -> list[float]:
    """The weights at ``places`` that integrate polynomials from 0 to 1 exactly."""
    powers = np.arange(len(places))
    found: list[float] = np.linalg.solve(
        np.asarray(places) ** powers[:, None], 1 / (powers + 1)
    ).tolist()
    return found
