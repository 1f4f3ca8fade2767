"""The plan of a diffusers scheduler on a model's path."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from composer.schedules import Schedule
from composer.solvers._families import Family, Place

NEARLY_CLEAN = 0.1
"""The lowest noise level at which a plan may begin; below it a run would return its noise."""
ROUNDING = 1e-5
"""The difference of equal noise levels that float32 may cause."""
GAP = 1e-9
"""The gap put between two evaluations at one noise level of the model."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The evaluations of a scheduler.

    Attributes:
        scheduler: with its timesteps set; copied before use.
        places: one per evaluation. Their times all differ and identify the places, so that plugins
            may leave out or repeat times.
        times: the times of the places, and the clean image's.
        one_evaluation: whether each step is one evaluation; a run may then begin at any of them.
        width: the ratio of the scheduler's initial noise to the path's, about 1.
    """

    scheduler: Any
    places: list[Place]
    times: list[float]
    one_evaluation: bool
    width: float

    def begin(self, index: int) -> Any:
        """A copy of the scheduler that begins at an evaluation."""
        scheduler = copy.deepcopy(self.scheduler)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
        return scheduler

    def index(self, time: float) -> int:
        """The index of a time.

        Raises:
            ValueError: the plan does not contain the time.
        """
        try:
            return self.times.index(time)
        except ValueError:
            raise ValueError(
                f"{type(self.scheduler).__name__} has no time {time:g} in its plan. A plugin may "
                "leave out or repeat times, and must not add others."
            ) from None


def plan_of(scheduler: Any, family: Family, schedule: Schedule, num_steps: int) -> Plan:
    """The plan of a scheduler in ``num_steps`` steps for a model of ``schedule``.

    Raises:
        ValueError: the scheduler has no such plan, or the plan does not go from noise to an image.
    """
    name = type(scheduler).__name__
    planned = copy.deepcopy(scheduler)
    try:
        planned.set_timesteps(num_steps)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"{name} has no plan of {num_steps} steps ({error}). Take another number of steps, or "
            "another configuration."
        ) from error
    levels = family.levels(planned)
    # UnCLIP has no order; PNDM has order 1, but more evaluations than steps.
    one_evaluation = getattr(planned, "order", 1) == 1 and len(levels) == num_steps
    _require_falling(levels, name, num_steps, strictly=one_evaluation)
    places = _distinct(family.places(planned, levels, schedule), schedule)
    times = [*(place.time for place in places), schedule.time_at(0.0)]
    plan = Plan(planned, places, times, one_evaluation, width=1.0)
    if not hasattr(planned, "init_noise_sigma"):
        return plan
    path = math.hypot(*family.shown(planned, places[0].level))
    return replace(plan, width=float(planned.init_noise_sigma) * scale(plan.begin(0), 0) / path)


def scale(scheduler: Any, index: int) -> float:
    """The ratio of the network's input to the scheduler's own variable at an evaluation."""
    if not hasattr(scheduler, "scale_model_input"):
        return 1.0
    one = torch.ones(1, dtype=torch.float64)
    return float(scheduler.scale_model_input(one, scheduler.timesteps[index]))


def _require_falling(levels: Sequence[float], name: str, steps: int, strictly: bool) -> None:
    """Raise a ValueError unless the noise levels fall from noise to an image."""
    if not all(map(math.isfinite, levels)):
        raise ValueError(
            f"{name} has no plan of {steps} steps, because a noise level is not finite. Take "
            "another number of steps, or another configuration."
        )
    if any(after > before + ROUNDING for before, after in pairwise(levels)):
        raise ValueError(
            f"{name} in {steps} steps goes from cleaner to noisier times, which the loop takes for "
            "a jump. Take another number of steps, or a scheduler that only denoises."
        )
    if strictly and any(after == before for before, after in pairwise(levels)):
        raise ValueError(
            f"{name} in {steps} steps has two steps at one noise level, and divides by the "
            "difference. Take fewer steps."
        )
    if levels[0] < NEARLY_CLEAN:
        raise ValueError(
            f"{name} in {steps} steps must begin at noise, and begins at a nearly clean image. "
            "Take more steps, or timestep_spacing='trailing'."
        )


def _distinct(places: Sequence[Place], schedule: Schedule) -> list[Place]:
    """The places, with the times of equal noise levels moved apart by :data:`GAP`."""
    distinct: list[Place] = []
    last = math.inf
    for place in places:
        level = schedule.noise_level(place.time)
        if level < last:
            distinct.append(place)
        else:
            level = last - GAP
            moved = place._replace(time=schedule.time_at(level))
            distinct.append(moved if place.beyond else moved._replace(level=level))
        last = level
    return distinct
