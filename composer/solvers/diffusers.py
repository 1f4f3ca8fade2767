"""A diffusers scheduler as a solver, for any backend."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import torch
from torch import Tensor

from composer.markers import hookimpl
from composer.protocols import State
from composer.requests import Estimate
from composer.schedules import DiscreteSchedule, Schedule
from composer.solvers._families import family_of

NEARLY_CLEAN = 0.1
"""A noise level at which no sample begins; a plan of one step may, and would return its noise."""


@dataclass(eq=False)
class _Run:
    """One pass of a scheduler: schedulers count their steps and remember outputs."""

    scheduler: Any
    index: int
    position: int
    selections: int
    levels: list[float]


class DiffusersSolver:
    """A solver that takes its times and steps from a diffusers scheduler.

    The scheduler keeps its own variables; the loop's x is what it would show the model, carried
    to the backend's path by the noise level. So a scheduler made for DDPM drives a flow model and
    the other way round. Those of DDPM's kind (``alphas_cumprod``; epsilon, sample or v), of
    FlowMatch, of EDM and IPNDM are driven; levels noisier than the model's noisiest time are spent
    at that time. After a jump, or a step that a plugin took, the
    scheduler starts anew where x is, its history forgotten.

    Args:
        scheduler: a configured diffusers scheduler; it is copied, never changed.

    Raises:
        TypeError: no scheduler. ValueError: a kind of scheduler that this cannot drive.
    """

    plans_times = True

    def __init__(self, scheduler: Any) -> None:
        if not all(hasattr(scheduler, name) for name in ("set_timesteps", "step", "config")):
            raise TypeError(
                f"DiffusersSolver needs a diffusers scheduler, got {type(scheduler).__name__}"
            )
        if isinstance(scheduler, type):
            raise TypeError(
                f"DiffusersSolver needs a scheduler object; write {scheduler.__name__}()"
            )
        self.scheduler = copy.deepcopy(scheduler)
        self._family = family_of(scheduler)
        self._accepted = frozenset(inspect.signature(scheduler.step).parameters)
        # ``from_config`` keeps another scheduler's word in one that knows nothing of it.
        knows = "variance_type" in inspect.signature(type(scheduler).__init__).parameters
        asked = scheduler.config.get("variance_type")
        self._learns_variance = knows and asked in ("learned", "learned_range")

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        levels = self._levels(self._fresh(num_steps))
        if any(after > before for before, after in pairwise(levels)):
            raise ValueError(
                f"{type(self.scheduler).__name__} in {num_steps} steps goes from cleaner to "
                "noisier times, which here means a jump; take another number of steps, or a "
                "scheduler that only denoises"
            )
        if levels[0] < NEARLY_CLEAN:
            raise ValueError(
                f"{type(self.scheduler).__name__} in {num_steps} steps begins at a nearly clean "
                "image, where there is only noise; take more steps, or timestep_spacing='trailing'"
            )
        times = [schedule.time_at(level) for level in levels]
        if isinstance(schedule, DiscreteSchedule):  # whole times stay whole, whatever rounding did
            times = [float(round(t)) if abs(t - round(t)) < 1e-6 else t for t in times]
        return times

    @hookimpl(wrapper=True)  # to look at the plan after all that change it
    def start(self, state: State) -> Generator[None, None, None]:
        noise = state.x
        yield
        if state.x is noise:  # as wide as it is there: on a flow, less than 1 after the start
            state.x = noise * math.hypot(*state.backend.schedule.at(state.t))
        plan = self.times(state.backend.schedule, state.num_inference_steps)
        if state.times != plan:
            self._require_one_evaluation(plan, state)
        if stray := set(state.times) - set(plan):
            raise ValueError(
                f"{type(self.scheduler).__name__} has no time {min(stray):g} in its plan; plugins "
                "may leave out or repeat its times, not add others"
            )

    def _require_one_evaluation(self, plan: list[float], state: State) -> None:
        if self.scheduler.order > 1 or len(plan) - 1 != state.num_inference_steps:
            raise ValueError(
                f"{type(self.scheduler).__name__} evaluates several times a step and can neither "
                "start nor jump inside its plan, nor lose images on the way; use Heun() or a "
                "one-evaluation scheduler"
            )

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        run: _Run | None = state.memory.get(self)
        if run is None or (run.position, run.selections) != (state.position, state.selections):
            run = state.memory[self] = self._begin(state)
        timestep = run.scheduler.timesteps[run.index]
        shrink = self._shrink(run, state.t, state.backend.schedule)
        alpha, sigma = self._family.shown(run.scheduler, run.levels[run.index])
        output = self._family.prediction(run.scheduler).target(
            estimate.x0, estimate.noise, alpha, sigma
        )
        if self._learns_variance:
            if estimate.variance is None:
                raise ValueError(
                    f"{type(self.scheduler).__name__} expects a learned variance and the backend "
                    "has none; configure it with variance_type='fixed_small'"
                )
            output = torch.cat([output, estimate.variance], 1)
        stepped = run.scheduler.step(
            output, timestep, estimate.x / shrink, **self._further(run, state)
        )
        run.index += 1
        run.position += 1
        x: Tensor = stepped.prev_sample
        return x * self._shrink(run, state.t_next, state.backend.schedule)

    def _begin(self, state: State) -> _Run:
        scheduler = self._fresh(state.num_inference_steps)
        plan = self.times(state.backend.schedule, state.num_inference_steps)
        if state.position > 0:
            self._require_one_evaluation(plan, state)
        # Times of a scheduler that are noisier than the model's noisiest are all this one.
        earlier = takewhile(lambda t: t == state.t, reversed(state.times[: state.position]))
        index = plan.index(state.t) + sum(1 for _ in earlier)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
        return _Run(scheduler, index, state.position, state.selections, self._levels(scheduler))

    def _fresh(self, num_steps: int) -> Any:
        scheduler = copy.deepcopy(self.scheduler)
        try:
            scheduler.set_timesteps(num_steps)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise ValueError(
                f"{type(scheduler).__name__} has no plan of {num_steps} steps ({error}); take "
                "another number of them, or configure it otherwise"
            ) from error
        return scheduler

    def _levels(self, scheduler: Any) -> list[float]:
        """Noise levels of the scheduler's timesteps, and 0 for the image."""
        return [*self._family.levels(scheduler), 0.0]

    def _shrink(self, run: _Run, t: float, schedule: Schedule) -> float:
        """The loop's x over the scheduler's, at the scheduler's current place."""
        if run.index == len(run.scheduler.timesteps):
            return 1.0
        shown = sum(self._family.shown(run.scheduler, run.levels[run.index]))
        if hasattr(run.scheduler, "scale_model_input"):
            one = torch.ones(1, dtype=torch.float64)
            scaled = run.scheduler.scale_model_input(one, run.scheduler.timesteps[run.index])
            shown /= float(scaled)
        return sum(schedule.at(t)) / shown

    def _further(self, run: _Run, state: State) -> dict[str, Any]:
        """What some schedulers' steps take beside output, time and image."""
        following = run.scheduler.timesteps[run.index + 1 :]
        further = {
            "generator": list(state.generators),
            "prev_timestep": following[0] if len(following) else None,  # UnCLIP's, else t - 1
        }
        return {name: value for name, value in further.items() if name in self._accepted}
