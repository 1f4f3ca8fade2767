"""Times that the user chooses, such as the presets of DeepFloyd IF."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from composer import UnknownNameError
from composer.arguments import finite_list
from composer.schedules import Schedule
from composer.solvers import DDPM, Solver
from composer_plugins.solvers.planned import Planned, require_falling, require_no_plan


@functools.cache
def presets() -> dict[str, list[int]]:
    """The times of IF's presets, by name."""
    from diffusers.pipelines.deepfloyd_if import timesteps  # noqa: PLC0415  # slow

    ending = "_timesteps"
    found = {name: times for name, times in vars(timesteps).items() if name.endswith(ending)}
    return {name.removesuffix(ending): times for name, times in found.items()}


@dataclass(frozen=True, eq=False)
class Timesteps(Planned):
    """A solver that visits given times instead of evenly spaced ones.

    Their number must equal the sampler's, as in ``Sampler(backend, solver=Timesteps("smart27"),
    num_inference_steps=27)``.

    Args:
        timesteps: times on the backend's schedule from noise to image, without the clean image's;
            or the name of one of IF's presets for 1000 times: fast27, smart27, smart50, smart100,
            smart185, super27, super40 and super100.
        solver: the solver that takes the steps; DDPM by default.
    """

    timesteps: str | Sequence[float]
    solver: Solver = field(default_factory=DDPM)

    def __post_init__(self) -> None:
        require_no_plan(self.solver, "Timesteps")
        if isinstance(self.timesteps, str):
            if self.timesteps not in presets():
                raise UnknownNameError("timesteps", self.timesteps, presets())
        else:
            finite_list(self.timesteps, "Timesteps: timesteps")

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        chosen = presets()[self.timesteps] if isinstance(self.timesteps, str) else self.timesteps
        if len(chosen) != num_steps:
            raise ValueError(
                f"Timesteps: timesteps must be {num_steps} times, got {len(chosen)}. Set "
                f"num_inference_steps={len(chosen)}."
            )
        times = [*map(float, chosen), schedule.time_at(0.0)]
        advice = "list times from noise to image, without the image itself"
        require_falling(times, schedule, f"Timesteps: {advice}")
        return times
