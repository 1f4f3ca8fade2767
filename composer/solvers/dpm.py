"""DPM-Solver++(2M): second order from one evaluation per step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from composer.markers import hookimpl
from composer.predictions import mixed
from composer.protocols import Solver, State
from composer.requests import Estimate
from composer.schedules import Schedule


@dataclass(frozen=True)
class DPMSolverPP(Solver):
    """DPM-Solver++(2M) of Lu et al. 2022, arXiv 2211.01095, algorithm 2.

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and h' the step before,

        D   = x_0 + (h / 2h') (x_0 - x_0'),
        x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) D.

    The first step, a step after a jump and the step to the clean image are of first order, D = x_0.
    """

    multistep = True

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        alpha_t, sigma_t = estimate.schedule.at(estimate.t)
        alpha_s, sigma_s = estimate.schedule.at(state.t_next)
        x0 = estimate.x0
        before = state.estimate
        # A walk leaves an estimate at this time, but of another image.
        if before is not None and before.t != estimate.t and sigma_s > 0:
            h = _lambda(estimate.schedule, state.t_next) - _lambda(estimate.schedule, estimate.t)
            h_before = _lambda(estimate.schedule, estimate.t) - _lambda(estimate.schedule, before.t)
            further = h / (2 * h_before)
            x0 = mixed(1 + further, x0, -further, before.x0)
        ratio = sigma_s / sigma_t
        return mixed(ratio, estimate.x, alpha_s - alpha_t * ratio, x0)


def _lambda(schedule: Schedule, t: float) -> float:
    alpha, sigma = schedule.at(t)
    return math.log(alpha / sigma) if alpha > 0 else -math.inf
