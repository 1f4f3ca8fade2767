"""Error against evaluations of each solver, on exact paths of known distributions.

    python benchmarks/solver_errors.py

The data are a mixture of four Gaussians over 8 x 8 pixels, whose exact model is known, so that the
error of a sample is the solver's alone: the root mean square distance from the end of the ODE,
over 16 seeds and 64 pixels. The paths are a flow, a flow with wide noise and a shift, and DDPM's
linear schedule. Guided runs have CFG(3) with component 1. Evaluations are steps of the ODE at which
the model is asked, guided or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from composer import Estimate, Plugin, Sampler, State, hookimpl
from composer.predictions import EPSILON, FLOW, Prediction
from composer.protocols import Asking, Solver
from composer.schedules import DiscreteSchedule, FlowSchedule, Schedule
from composer.solvers import DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, AdamsBashforth, Adaptive, UniPC

SEEDS = range(16)
EVALUATIONS = 5, 10, 20, 40
PATHS: dict[str, tuple[Schedule, Prediction]] = {
    "flow": (FlowSchedule(), FLOW),
    "wide flow": (FlowSchedule(noise_scale=2.0, shift=3.0, last=0.001), FLOW),
    "ddpm": (DiscreteSchedule.linear(), EPSILON),
}
STACKS: dict[str, Sequence[object]] = {"unguided": [], "guided": [CFG(3.0)]}
SOLVERS: dict[str, Solver] = {
    "Euler (DDIM)": Euler(),
    "Heun": Heun(),
    "DPMSolverPP": DPMSolverPP(),
    "UniPC(2)": UniPC(2),
    "UniPC(3)": UniPC(3),
    "AdamsBashforth(2)": AdamsBashforth(2),
    "AdamsBashforth(3)": AdamsBashforth(3),
    "AdamsBashforth(4)": AdamsBashforth(4),
}
TOLERANCES = 0.3, 0.1, 0.03, 0.01, 0.001


def mixture(schedule: Schedule, prediction: Prediction) -> GaussianMixtureBackend:
    generator = torch.Generator().manual_seed(7)
    means = torch.randn((4, 1, 8, 8), generator=generator, dtype=torch.float64).clamp(-1, 1)
    return GaussianMixtureBackend(means, [0.1, 0.15, 0.2, 0.25], None, schedule, prediction)


@dataclass(frozen=True)
class Fine(Plugin):
    """Heun's steps, shorter and shorter near the image."""

    solver: Solver = field(default_factory=Heun)

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        first = schedule.times(1)[0]
        width = schedule.noise_level(first) ** 0.5
        levels = [(width * (1 - k / num_steps)) ** 2 for k in range(1, num_steps + 1)]
        return [first, *map(schedule.time_at, levels)]

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor | Asking[Tensor]:
        return self.solver.step(state, estimate)


def lines() -> Iterator[str]:
    """The rows of the table."""
    for name, stack in STACKS.items():
        for path, (schedule, prediction) in PATHS.items():
            backend = mixture(schedule, prediction)

            def run(solver: Solver, steps: int) -> tuple[Tensor, float]:
                sampler = Sampler(backend, stack, solver, steps)  # noqa: B023
                result = sampler.sample(1 if stack else None, SEEDS)  # noqa: B023
                rows = result.stats.rows / len(SEEDS) / (2 if stack else 1)  # noqa: B023
                return result.x, rows

            exact, _ = run(Fine(), 1500)
            yield f"{path}, {name}"
            yield f"  {'evaluations':18}" + "".join(f"{n:10}" for n in EVALUATIONS)
            for title, solver in SOLVERS.items():
                each = 2 if isinstance(solver, Heun) else 1
                errors = (_error(run(solver, (n + 1) // each)[0], exact) for n in EVALUATIONS)
                yield f"  {title:18}" + "".join(f"{error:10.4f}" for error in errors)
            for tolerance in TOLERANCES:
                x, rows = run(Adaptive(tolerance), 1)
                yield f"  {f'Adaptive({tolerance:g})':18}{_error(x, exact):10.4f} in {rows:.1f}"


def _error(x: Tensor, exact: Tensor) -> float:
    return float((x - exact).square().mean().sqrt())


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
