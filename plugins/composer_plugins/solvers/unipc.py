"""UniPC: a multistep predictor, and a corrector that costs no further evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from composer import Estimate, Plugin, State, hookimpl
from composer.arguments import integer
from composer.schedules import Schedule
from composer_plugins.solvers.history import past_estimates


class _Left(NamedTuple):
    """What a step left: the corrected image it began with, its order, and the image it made."""

    began: Tensor
    order: int
    x: Tensor


@dataclass(frozen=True)
class UniPC(Plugin):
    """UniPC of Zhao et al. 2023, arXiv 2302.04867, in its variant B_2 for predictions of x_0.

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and r_k = (lambda_k - lambda_t) / h of
    other estimates x_0k, the predictor (algorithm 2) and the corrector (algorithm 1) are both

        x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - e^-h) (x_0 + sum_k rho_k (x_0k - x_0) / r_k).

    The predictor's further estimates are earlier ones. The corrector repeats the step that led to
    x_t with the estimate at x_t too, so its order is one higher at no further evaluation. The rho_k
    make the rule exact for polynomials in lambda; with one estimate rho is 1/2, as in the authors'
    code. Order falls near the end of the run, and to 1 in the step to the clean image.

    The corrector would undo what plugins did to x after the step, so it is left out if x was
    replaced. After a jump or a walk the history begins anew.

    Args:
        order: of the predictor, 1 to 4; 3 without guidance, 2 with.
    """

    multistep = True

    order: int = 2

    def __post_init__(self) -> None:
        integer(self.order, "UniPC: order", least=1, most=4)

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        return schedule.times(num_steps)

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        past = past_estimates(state, self, estimate, self.order + 1)
        began, left = estimate.x, state.memory.get(_left_by(self))
        if left is not None and left.x is estimate.x and len(past) > 1:
            others = [past[0], *past[2 : left.order + 1]]
            began = _stepped(left.began, past[1], others, estimate.t)
        remaining = len(state.times) - 1 - state.position
        usable = [past[0], *(e for e in past[1:] if e.schedule.at(e.t)[0] > 0)]
        order = min(self.order, len(usable), remaining)
        x = _stepped(began, past[0], usable[1:order], state.t_next)
        state.memory[_left_by(self)] = _Left(began, order, x)
        return x


def _left_by(solver: UniPC) -> tuple[UniPC, str]:
    return solver, "left"


def _stepped(x: Tensor, here: Estimate, others: Sequence[Estimate], s: float) -> Tensor:
    """The image at time s from x at the time of ``here``, with other estimates beside it."""
    schedule = here.schedule
    alpha_t, sigma_t = schedule.at(here.t)
    alpha_s, sigma_s = schedule.at(s)
    ratio = sigma_s / sigma_t
    gain = alpha_s - alpha_t * ratio  # alpha_s (1 - e^-h)
    stepped = ratio * x + gain * here.x0
    if sigma_s == 0 or not others:
        return stepped
    h = _lambda(schedule, s) - _lambda(schedule, here.t)
    here_at = _lambda(schedule, here.t)
    # From pure noise h is infinite, and the only other estimate is that at s.
    places = [(_lambda(schedule, e.t) - here_at) / h if h < math.inf else 1.0 for e in others]
    for rho, place, e in zip(_rhos(places, h), places, others, strict=True):
        stepped.add_(e.x0 - here.x0, alpha=gain * rho / place)
    return stepped


def _rhos(places: Sequence[float], h: float) -> list[float]:
    """Equation 5 of the paper: sum_k rho_k r_k^(n-1) = n! h phi_(n+1)(h) / B(h)."""
    if len(places) == 1:
        return [0.5]
    scale = phi = math.expm1(-h)
    moments, factorial = [], 1
    for n in range(1, len(places) + 1):
        factorial *= n
        phi = phi / -h - 1 / factorial
        moments.append(phi * factorial / scale)
    rows = np.asarray(places) ** np.arange(len(places))[:, None]
    found: list[float] = np.linalg.solve(rows, moments).tolist()
    return found


def _lambda(schedule: Schedule, t: float) -> float:
    alpha, sigma = schedule.at(t)
    return math.log(alpha / sigma) if alpha > 0 else -math.inf
