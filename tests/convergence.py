"""How fast a solver's error falls with its steps."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from composer import Sampler, hookimpl
from composer.solvers import Heun
from composer.testing import GaussianMixtureBackend


@dataclass(frozen=True)
class Eased:
    """As Between, with two tiny steps of h^2 at either end, where multistep rules have a lower
    order: so their error is that of the full order."""

    solver: object

    def times(self, schedule, num_steps):
        even = [0.2 + 0.6 * i / num_steps for i in range(num_steps + 1)]
        small = (0.6 / num_steps) ** 2
        return [0.2, 0.2 + small, 0.2 + 2 * small, *even[1:-1], 0.8 - 2 * small, 0.8 - small, 0.8]

    @hookimpl
    def step(self, state, estimate):
        return self.solver.step(state, estimate)


@dataclass(frozen=True)
class Between:
    """A solver on an even grid of two thirds of the flow path, away from its ends."""

    solver: object

    def times(self, schedule, num_steps):
        return [0.2 + 0.6 * i / num_steps for i in range(num_steps + 1)]

    @hookimpl
    def step(self, state, estimate):
        return self.solver.step(state, estimate)


def run(solver, num_steps):
    """Sample 32 times from two Gaussians in one dimension."""
    means = torch.tensor([-0.6, 0.8], dtype=torch.float64).reshape(2, 1, 1, 1)
    backend = GaussianMixtureBackend(means, [0.5, 0.4])
    return Sampler(backend, solver=solver, num_inference_steps=num_steps).sample(seeds=range(32))


@cache
def exact(whole):
    return run(Heun() if whole else Between(Heun()), 4000).x


def slope(solver, steps):
    """Order of convergence: minus the slope of log error over log steps, float64."""
    whole = not isinstance(solver, Between | Eased)
    errors = [(run(solver, n).x - exact(whole)).norm().item() for n in steps]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]
