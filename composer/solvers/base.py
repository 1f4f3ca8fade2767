"""What the loop asks of a solver."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from composer.schedules import Schedule

if TYPE_CHECKING:
    from composer.requests import Estimate, Request
    from composer.state import State


@runtime_checkable
class Solver(Protocol):
    """Takes the step that no plugin took; registered as the innermost plugin of the stack."""

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        """The times to visit, from noise to the clean image; ``schedule.times`` for most."""
        ...

    def step(
        self, state: State, estimate: Estimate
    ) -> Tensor | Generator[list[Request], list[Estimate], Tensor]:
        """The image at ``state.t_next``; mark it with ``composer.hookimpl``.

        ``state.estimate`` is the estimate of the step before. May be a generator that yields
        requests, like a plugin's ``noise_estimate``.
        """
        ...
