"""The known models and the requests with which the kit examines a stack of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from composer.driver import Answer, resolve
from composer.hooks import hooked, noise_estimates
from composer.plugin import declared, with_nested
from composer.protocols import Backend
from composer.requests import Estimate, Request
from composer.sampler import Sampler
from composer.schedules import DiscreteSchedule, FlowSchedule, Schedule
from composer.solvers import DDPM
from composer.testing.gaussian_mixture import GaussianMixtureBackend
from composer.testing.probe import Shape, noise

COMPONENTS = 10
STEPS = 6
# Noise levels, and the step number of each: some plugins count steps.
LEVELS = {0.9: 0, 0.5: 7, 0.1: 40}


class _FlowInside(FlowSchedule):
    """Flow times from 0.02: at pure noise, epsilon does not determine the image."""

    def times(self, num_steps: int) -> list[float]:
        return [0.02 + 0.98 * t for t in super().times(num_steps)]


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "flow": _FlowInside,
    "wide flow": lambda: _FlowInside(noise_scale=2.0, shift=3.0),
    "discrete": DiscreteSchedule.linear,
}


@dataclass(frozen=True)
class Stack:
    """Plugins, the condition of the call, and the shape (C, H, W) of the images."""

    plugins: tuple[object, ...]
    condition: Any
    shape: Shape

    def requests(self, schedule: Schedule) -> Iterator[Request]:
        """Requests for two images, at three noise levels."""
        x = noise(self.shape, 2)
        for level, step in LEVELS.items():
            t = schedule.time_at(level)
            yield Request(x, t, self.condition, step=step, schedule=schedule)

    def sampler(self, backend: Backend) -> Sampler:
        """The plugins over a backend, with a solver that they accept."""
        needed = any(declared(p, "needs_ancestral") for p in with_nested(self.plugins))
        solver = DDPM() if needed else None
        return Sampler(backend, self.plugins, solver, num_inference_steps=STEPS)

    @torch.no_grad()
    def estimate(self, request: Request, answer: Answer) -> Estimate:
        """The estimate that the plugins make from a model's answers."""
        return resolve(request, noise_estimates(hooked(self.plugins)), answer)


def mixture(shape: Shape) -> GaussianMixtureBackend:
    """A mixture of ten random images (C, H, W), each a component."""
    generator = torch.Generator().manual_seed(7)
    means = torch.rand((COMPONENTS, *shape), generator=generator, dtype=torch.float64) * 2 - 1
    return GaussianMixtureBackend(means, [0.1 + 0.02 * k for k in range(COMPONENTS)])
