"""What a diffusers scheduler plans, laid out on a model's path."""

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
"""A noise level at which no sample begins; a plan of one step may, and would return its noise."""
ROUNDING = 1e-5
"""By which noise levels that are equal may differ, computed in float32."""
GAP = 1e-9
"""Between the noise levels of two evaluations that the model can only be asked at one."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The evaluations of a scheduler.

    Attributes:
        scheduler: with its timesteps set; to be copied before use.
        places: one an evaluation, their times all different: a time is the name of its place, so
            that plugins may leave out times, and come back to others.
        times: of the places, and the clean image's.
        one_evaluation: whether a step is one evaluation, so that a run may begin at each.
        width: of the scheduler's first noise, over that of the path there; 1 or nearly so.
    """

    scheduler: Any
    places: list[Place]
    times: list[float]
    one_evaluation: bool
    width: float

    def begin(self, index: int) -> Any:
        """A scheduler that begins at an evaluation."""
        scheduler = copy.deepcopy(self.scheduler)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
        return scheduler

    def index(self, time: float) -> int:
        """The index of a time.

        Raises:
            ValueError: none is.
        """
        try:
            return self.times.index(time)
        except ValueError:
            raise ValueError(
                f"{type(self.scheduler).__name__} has no time {time:g} in its plan; plugins may "
                "leave out or repeat its times, not add others"
            ) from None


def plan_of(scheduler: Any, family: Family, schedule: Schedule, num_steps: int) -> Plan:
    """The plan of a scheduler in ``num_steps`` steps for a model of ``schedule``.

    Raises:
        ValueError: it has none, or none that leads from noise to an image.
    """
    name = type(scheduler).__name__
    planned = copy.deepcopy(scheduler)
    try:
        planned.set_timesteps(num_steps)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"{name} has no plan of {num_steps} steps ({error}); take another number of them, or "
            "configure it otherwise"
        ) from error
    levels = family.levels(planned)
    # UnCLIP's has no order; PNDM's is 1, and it evaluates more often than it steps.
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
    """What a scheduler under way shows the network, over its own variable, at an evaluation."""
    if not hasattr(scheduler, "scale_model_input"):
        return 1.0
    one = torch.ones(1, dtype=torch.float64)
    return float(scheduler.scale_model_input(one, scheduler.timesteps[index]))


def _require_falling(levels: Sequence[float], name: str, steps: int, strictly: bool) -> None:
    """Refuse a plan that is no way from noise to an image."""
    if not all(map(math.isfinite, levels)):
        raise ValueError(
            f"{name} has no plan of {steps} steps: not all its noise levels are finite; take "
            "another number of them, or configure it otherwise"
        )
    if any(after > before + ROUNDING for before, after in pairwise(levels)):
        raise ValueError(
            f"{name} in {steps} steps goes from cleaner to noisier times, which here means a jump; "
            "take another number of steps, or a scheduler that only denoises"
        )
    if strictly and any(after == before for before, after in pairwise(levels)):
        raise ValueError(
            f"{name} in {steps} steps stays at one noise level for two of them, and divides by the "
            "difference; take fewer steps"
        )
    if levels[0] < NEARLY_CLEAN:
        raise ValueError(
            f"{name} in {steps} steps begins at a nearly clean image, where there is only noise; "
            "take more steps, or timestep_spacing='trailing'"
        )


def _distinct(places: Sequence[Place], schedule: Schedule) -> list[Place]:
    """The places, the times of those at one noise level moved apart by next to nothing."""
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
