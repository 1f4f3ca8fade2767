"""Longer steps in noise and shorter ones near the image, for any solver."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from composer.arguments import positive
from composer.schedules import Schedule
from composer.solvers import DDPM, Solver
from composer_plugins.solvers.planned import Planned, require_falling, require_no_plan


@dataclass(frozen=True, eq=False)
class Spaced(Planned):
    """A solver that visits the noise levels low + (high - low) (1 - k / n)^power, on any schedule.

    The noise level is sigma / (alpha + sigma). high and low are its values at the ends of training,
    1 and 0 for a flow; the image follows after k = n - 1. Power 1 makes even steps (a flow's own
    times); a larger power makes steps longer in noise and shorter near the image, as Karras et al.
    2022 (arXiv 2206.00364, equation 5) do. SDEdit's strength counts steps, so it noises an image to
    about strength^power only. On a discrete schedule the times need not be whole numbers.

    Args:
        solver: the solver that takes the steps; DDPM by default.
        power: above 0.
    """

    solver: Solver = field(default_factory=DDPM)
    power: float = 3.0

    def __post_init__(self) -> None:
        require_no_plan(self.solver, "Spaced")
        positive(self.power, "Spaced: power")

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        ends = schedule.training_times(torch.tensor([0.0, 1.0], dtype=torch.float64))
        low, high = sorted(schedule.noise_level(t) for t in ends.tolist())
        places = [(1 - k / num_steps) ** self.power for k in range(num_steps)]
        levels = [low + (high - low) * place for place in places]
        times = [schedule.time_at(level) for level in (*levels, 0.0)]
        require_falling(
            times, schedule, f"Spaced: bring power={self.power:g} nearer to 1, or take fewer steps"
        )
        return times
