"""Error against evaluations of each solver, on exact paths and on the shipped models.

    python benchmarks/solver_errors.py
    python benchmarks/solver_errors.py --model mnist --model nouns

The data of the exact paths are a mixture of four Gaussians over 8 x 8 pixels, whose exact model is
known, so that the error of a sample is the solver's alone: the root mean square distance from the
end of the ODE, over 64 seeds and all pixels. The paths are a flow, a flow with wide noise and a
shift, and DDPM's linear and cosine schedules. With ``--model`` the ODE is that of a shipped model,
in float32, of ``--seeds`` seeds. Guided runs have CFG(3) with the condition 1. Evaluations are
steps of the ODE at which the model is asked, guided or not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from diffusers import DDPMScheduler
from torch import Tensor

import composer
from composer import Estimate, Plugin, Sampler, State, hookimpl
from composer.predictions import EPSILON, FLOW, Prediction
from composer.protocols import Asking, Backend, Solver
from composer.schedules import DiscreteSchedule, FlowSchedule, Schedule
from composer.solvers import DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, AdamsBashforth, Adaptive, UniPC

CONDITION = 1
EVALUATIONS = 5, 10, 20, 40
COSINE = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
PATHS: dict[str, tuple[Schedule, Prediction]] = {
    "flow": (FlowSchedule(), FLOW),
    "wide flow": (FlowSchedule(noise_scale=2.0, shift=3.0, last=0.001), FLOW),
    "ddpm": (DiscreteSchedule.linear(), EPSILON),
    "cosine": (DiscreteSchedule(COSINE), EPSILON),
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


@dataclass(frozen=True, eq=False)
class Errors:
    """Distances from the end of one stack's ODE.

    Args:
        fine: steps of the run that stands for the exact one.
        seeds: how many.
    """

    backend: Backend
    plugins: Sequence[object]
    fine: int = 1500
    seeds: int = 64

    def of(self, solver: Solver, steps: int) -> tuple[float, float]:
        """The root mean square error, and evaluations per image."""
        x, evaluations = self._run(solver, steps)
        return float((x - self._exact).square().mean().sqrt()), evaluations

    @cached_property
    def _exact(self) -> Tensor:
        return self._run(Fine(), self.fine)[0]

    def _run(self, solver: Solver, steps: int) -> tuple[Tensor, float]:
        sampler = Sampler(self.backend, self.plugins, solver, steps, max_rows=32)
        result = sampler.sample(CONDITION if self.plugins else None, range(self.seeds))
        return result.x, result.stats.rows / self.seeds / (2 if self.plugins else 1)


def lines(stacks: Sequence[Errors]) -> Iterator[str]:
    """A line for each solver: for each stack, columns for EVALUATIONS."""
    yield f"  {'evaluations':18}" + "".join(f"{n:9}" for _ in stacks for n in EVALUATIONS)
    for title, solver in SOLVERS.items():
        cells = (_error_within(errors, solver, n) for errors in stacks for n in EVALUATIONS)
        yield f"  {title:18}" + "".join(f"{error:9.4f}" for error in cells)
    for tolerance in TOLERANCES:
        found = (errors.of(Adaptive(tolerance), 1) for errors in stacks)
        words = (f"{error:.4f} in {evaluations:.1f}" for error, evaluations in found)
        width = 9 * len(EVALUATIONS)
        yield f"  {f'Adaptive({tolerance:g})':18}" + "".join(f"{word:>{width}}" for word in words)


def _error_within(errors: Errors, solver: Solver, evaluations: int) -> float:
    # Heun's last step takes one evaluation, the others two.
    steps = (evaluations + 1) // 2 if isinstance(solver, Heun) else evaluations
    error, taken = errors.of(solver, steps)
    assert taken <= evaluations, f"{solver} took {taken}"
    return error


def main() -> None:
    parser = argparse.ArgumentParser(description="Error against evaluations of each solver.")
    parser.add_argument("--model", action="append", help="a backend instead of the exact paths")
    parser.add_argument("--seeds", type=int, default=16, help="with --model")
    options = parser.parse_args()
    cases: dict[str, tuple[Backend, int, int]] = (
        {name: (composer.load_backend(name), 100, options.seeds) for name in options.model}
        if options.model
        else {name: (mixture(*path), 1500, 64) for name, path in PATHS.items()}
    )
    for name, case in cases.items():
        print(f"{name:20}" + "".join(f"{stack:>{9 * len(EVALUATIONS)}}" for stack in STACKS))
        for line in lines([Errors(case[0], plugins, *case[1:]) for plugins in STACKS.values()]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
