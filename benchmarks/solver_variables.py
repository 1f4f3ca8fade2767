"""In which variable should a multistep solver extrapolate which output? Errors on exact paths.

    python benchmarks/solver_variables.py

With tau = sigma / (alpha + sigma), the ODE of every path can be written in three ways:

    d (x / (alpha + sigma)) / d tau             = noise - x_0,
    d (x / alpha)           / d (sigma / alpha) = noise,
    d (x / sigma)           / d (alpha / sigma) = x_0.

A multistep rule extrapolates a right side by the polynomial through its last estimates, in any
variable, and integrates it exactly. (noise - x_0 in tau) is AdamsBashforth, (x_0 in
log(alpha / sigma)) DPM-Solver++ without its approximation, (noise in sigma / alpha) k-diffusion's
LMS. Estimates at which a variable is infinite are left out, and a step to or from an infinite value
is Euler's. The data are those of solver_errors.py, and three Gaussians of one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from solver_errors import PATHS, STACKS, Errors, mixture
from torch import Tensor

from composer import Estimate, Plugin, State, hookimpl
from composer.predictions import Prediction, mixed
from composer.schedules import Schedule
from composer.testing import GaussianMixtureBackend
from composer_plugins.solvers.history import past_estimates

EVALUATIONS = 20
ORDERS = 2, 3
NODES, SHARES = np.polynomial.legendre.leggauss(100)
Variable = Callable[[float, float], float]
"""(alpha, sigma) -> where a time lies."""


def tau(alpha: float, sigma: float) -> float:
    return sigma / (alpha + sigma)


def noise_to_signal(alpha: float, sigma: float) -> float:
    return sigma / alpha if alpha > 0 else math.inf


def signal_to_noise(alpha: float, sigma: float) -> float:
    return alpha / sigma if sigma > 0 else math.inf


def half_log_snr(alpha: float, sigma: float) -> float:
    return math.log(alpha / sigma) if alpha > 0 < sigma else math.copysign(math.inf, alpha - sigma)


@dataclass(frozen=True)
class Output:
    """A right side a x_0 + b noise, the divisor c alpha + d sigma of x, and the variable of d."""

    row: tuple[float, float]
    divisor: tuple[float, float]
    variable: Variable
    amplitudes: Callable[[float], tuple[float, float]]
    """(alpha, sigma), up to a factor, at a value of the variable."""


OUTPUTS = {
    "noise - x_0": Output((-1, 1), (1, 1), tau, lambda q: (1 - q, q)),
    "noise": Output((0, 1), (1, 0), noise_to_signal, lambda q: (1, q)),
    "x_0": Output((1, 0), (0, 1), signal_to_noise, lambda q: (q, 1)),
}
VARIABLES = {
    "sigma / (alpha + sigma)": tau,
    "sigma / alpha": noise_to_signal,
    "log(alpha / sigma)": half_log_snr,
}


@dataclass(frozen=True)
class Multistep(Plugin):
    """The exact integral of the polynomial in ``variable`` through the last outputs."""

    output: Output
    variable: Variable
    order: int

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        return schedule.times(num_steps)

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        schedule, (c, d), (a, b) = estimate.schedule, self.output.divisor, self.output.row
        past = past_estimates(state, self, estimate, self.order)
        here, there = schedule.at(estimate.t), schedule.at(state.t_next)
        q, q_s = self.output.variable(*here), self.output.variable(*there)
        places = [self.variable(*schedule.at(e.t)) for e in past]
        if not all(map(math.isfinite, (q, q_s, places[0], self.variable(*there)))):
            return mixed(there[0], estimate.x0, there[1], estimate.noise)
        usable = [k for k, place in enumerate(places) if math.isfinite(place)]
        nodes = (q + q_s) / 2 + (q_s - q) / 2 * NODES
        at = [self.variable(*self.output.amplitudes(float(node))) for node in nodes]
        weights = _weights([places[k] for k in usable], at)
        x = estimate.x / (c * here[0] + d * here[1])
        for k, weight in zip(usable, weights, strict=True):
            x = x + (q_s - q) * weight * mixed(a, past[k].x0, b, past[k].noise)
        return (c * there[0] + d * there[1]) * x


def _weights(places: Sequence[float], at: Sequence[float]) -> list[float]:
    """The mean of each place's Lagrange polynomial over the nodes."""
    found = []
    for k, place in enumerate(places):
        others = [other for i, other in enumerate(places) if i != k]
        values = np.prod([(np.array(at) - o) / (place - o) for o in others], axis=0)
        found.append(float((SHARES * values).sum() / 2))
    return found


def one_pixel(schedule: Schedule, prediction: Prediction) -> GaussianMixtureBackend:
    means = torch.tensor([-0.6, 0.8, 0.1], dtype=torch.float64).reshape(3, 1, 1, 1)
    return GaussianMixtureBackend(means, [0.3, 0.2, 0.1], None, schedule, prediction)


DATA = {"four Gaussians, 64 pixels": mixture, "three Gaussians, one pixel": one_pixel}


def lines() -> Iterator[str]:
    """For each data set and stack, a line for each rule, and columns for each path and order."""
    for data, backend_of in DATA.items():
        for stack, plugins in STACKS.items():
            yield f"{data}, {stack}, {EVALUATIONS} evaluations"
            yield f"  {'':38}" + "".join(f"{path:>16}" for path in PATHS)
            orders = "".join(f"{f'order {order}':>8}" for order in ORDERS)
            yield f"  {'extrapolated':14}{'in':24}" + orders * len(PATHS)
            paths = [Errors(backend_of(*path), plugins) for path in PATHS.values()]
            for name, output in OUTPUTS.items():
                for place, variable in VARIABLES.items():
                    found = (
                        errors.of(Multistep(output, variable, order), EVALUATIONS)[0]
                        for errors in paths
                        for order in ORDERS
                    )
                    figures = "".join(f"{error:8.4f}" for error in found)
                    yield f"  {name:14}{place:24}{figures}"


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
