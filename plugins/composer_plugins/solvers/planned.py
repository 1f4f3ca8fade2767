"""The base of solvers that choose the times for another solver."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from composer import Estimate, Plugin, Request, State, hookimpl
from composer.authoring import checked_solver, declared
from composer.schedules import Schedule
from composer.solvers import Solver


class Planned(Plugin):
    """A solver with times of its own, whose steps ``solver`` takes, a field of the subclass."""

    plans_times = True
    if TYPE_CHECKING:

        @property
        def solver(self) -> Solver: ...

    @property
    def ancestral(self) -> bool:
        return bool(declared(self.solver, "ancestral"))

    @property
    def multistep(self) -> bool:
        return bool(declared(self.solver, "multistep"))

    @hookimpl
    def step(
        self, state: State, estimate: Estimate
    ) -> Tensor | Generator[list[Request], list[Estimate], Tensor]:
        return self.solver.step(state, estimate)


def require_falling(times: Sequence[float], schedule: Schedule, advice: str) -> None:
    """Raise a ValueError unless the noise falls at every step of a plan."""
    levels = [schedule.noise_level(t) for t in times]
    for (t, s), (level, cleaner) in zip(pairwise(times), pairwise(levels), strict=True):
        if cleaner >= level:
            raise ValueError(f"{advice}. The noise must fall at every step, got {t:g} to {s:g}.")


def require_no_plan(solver: Solver, owner: str) -> None:
    """Raise a ValueError if the inner ``solver`` plans its own times."""
    checked_solver(solver)
    if declared(solver, "plans_times"):
        raise ValueError(
            f"{owner}: solver must not plan its own times, got {type(solver).__name__}. Use a "
            "solver of composer, or configure the scheduler."
        )
