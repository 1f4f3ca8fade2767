"""A diffusers scheduler as a solver, for any backend."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from composer.backend_attributes import noise_scale_of
from composer.markers import hookimpl
from composer.predictions import Amplitude
from composer.protocols import State
from composer.requests import Estimate
from composer.schedules import Schedule
from composer.solvers._families import family_of
from composer.solvers._plan import Plan, plan_of, scale
from composer.solvers._schedulers import clips

_CORRECTORS = "multistep_uni_c_bh_update", "stochastic_adams_moulton_update"
"""The methods of UniPC's and SA's schedulers that recompute an image from earlier ones."""


@dataclass(eq=False)
class _Run:
    """One pass of a scheduler along its plan; schedulers count steps and remember outputs.

    Attributes:
        plan: the plan that it follows.
        scheduler: a copy of the plan's scheduler, in use.
        begun: the index of its first evaluation.
        index: the index of its next evaluation.
        position, selections: those of the state after its last step.
        left: the image after its last step.
        own: the scale of the network's input at its next evaluation.
    """

    plan: Plan
    scheduler: Any
    begun: int
    index: int
    position: int
    selections: int
    left: Tensor
    own: float

    def goes_on(self, state: State) -> bool:
        """Whether ``state`` is at the scheduler's next evaluation."""
        where = self.position, self.selections
        return (
            where == (state.position, state.selections) and self.plan.times[self.index] == state.t
        )


class DiffusersSolver:
    """A solver that takes its times and steps from a diffusers scheduler.

    The scheduler keeps its own variables. The loop's x is the scheduler's network input, moved to
    the backend's path at the same noise level. So a scheduler made for DDPM drives a flow model,
    and a flow scheduler drives a DDPM model. It drives DDPM-like schedulers (``alphas_cumprod``;
    epsilon, sample or v), FlowMatch, EDM and IPNDM.

    Where a scheduler is noisier than the model's noisiest time, the solver evaluates the model at
    that time, and gives the scheduler alpha x_0 + sigma noise of the estimate on its own path.
    After a jump, a walk, or a step by a plugin, the scheduler restarts at x without its history.

    Args:
        scheduler: a configured diffusers scheduler; it is copied, never changed. Configure it with
            ``clip_sample=False``: DDPMScheduler, DDIMScheduler and others clip by default, and a
            model that was not trained with clipping then makes other images.

    Raises:
        TypeError: it is not a scheduler.
        ValueError: the solver cannot drive this kind of scheduler.

    Warns:
        UserWarning: the scheduler clips every clean image that it estimates.
    """

    plans_times = True
    multistep = True  # as most schedulers are

    def __init__(self, scheduler: Any) -> None:
        if not all(hasattr(scheduler, name) for name in ("set_timesteps", "step", "config")):
            raise TypeError(
                "DiffusersSolver: scheduler must be a diffusers scheduler, got "
                f"{type(scheduler).__name__}."
            )
        if isinstance(scheduler, type):
            raise TypeError(
                f"DiffusersSolver: scheduler must be an object, got the class. Write "
                f"{scheduler.__name__}()."
            )
        if clips(scheduler):
            warnings.warn(
                f"DiffusersSolver: {type(scheduler).__name__} clips every estimated clean image "
                "(clip_sample=True), which changes the images of a model that was not trained with "
                "clipping. Configure the scheduler with clip_sample=False; a backend of "
                "load_backend('diffusers') clips by itself where its model needs it.",
                stacklevel=2,
            )
        self.scheduler = copy.deepcopy(scheduler)
        self._family = family_of(scheduler)
        self._planned: tuple[Schedule, int, Plan] | None = None
        self._accepted = frozenset(inspect.signature(scheduler.step).parameters)
        self._corrector = next((name for name in _CORRECTORS if hasattr(scheduler, name)), None)
        # DPM-Solver and similar schedulers drop half of the channels, assuming 3-channel images.
        heeds = "variance_type" in vars(scheduler)
        self._learns_variance = heeds and scheduler.variance_type in ("learned", "learned_range")
        if "variance_type" in scheduler.config and not heeds:
            self.scheduler.register_to_config(variance_type=None)

    def __repr__(self) -> str:
        return f"DiffusersSolver({type(self.scheduler).__name__})"

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        return list(self._plan(schedule, num_steps).times)

    @hookimpl(wrapper=True)  # to read the plan after all plugins have changed it
    def start(self, state: State) -> Generator[None, None, None]:
        noise = state.x
        yield
        plan = self._plan(state.backend.schedule, state.num_inference_steps)
        if state.x is noise:  # scale it to the first time: on a flow, below 1 after the start
            path = math.hypot(*state.backend.schedule.at(state.t))
            state.x = noise * (plan.width * path / noise_scale_of(state.backend))
        for time in set(state.times):
            plan.index(time)
        if state.times != plan.times:
            self._require_one_evaluation(plan)
        state.memory[self] = plan

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        if state.t_next == state.t:  # a walk whose step no plugin took
            return estimate.x
        run = self._run(state)
        here = run.plan.places[run.index]
        shown = self._family.shown(run.scheduler, here.level)
        own = 1 / run.own
        if here.beyond:
            sample = _mixed(shown, estimate.x0, estimate.noise) * own
        else:
            ratio = sum(shown) / sum(estimate.schedule.at(state.t))
            sample = _scaled(estimate.x, own * ratio)
        output = self._output(run, estimate, shown)
        further = self._further(run, state)
        timestep = run.scheduler.timesteps[run.index]
        with _correcting(run.scheduler, self._corrector, run.left, state.x):
            stepped: Tensor = run.scheduler.step(output, timestep, sample, **further).prev_sample
        run.index, run.position = run.index + 1, state.position + 1
        run.left = self._reached(run, state, estimate, stepped)
        return run.left

    def _reached(self, run: _Run, state: State, estimate: Estimate, stepped: Tensor) -> Tensor:
        """Convert the scheduler's image at its next evaluation to x at ``state.t_next``."""
        if run.index == len(run.plan.places):
            return stepped
        there = run.plan.places[run.index]
        shown = self._family.shown(run.scheduler, there.level)
        amplitudes = estimate.schedule.at(state.t_next)
        run.own = scale(run.scheduler, run.index)
        if there.time == state.t_next and not there.beyond:
            return _scaled(stepped, run.own * sum(amplitudes) / sum(shown))
        x = stepped * run.own
        alpha, sigma = shown
        return _mixed(amplitudes, estimate.x0, (x - alpha * estimate.x0) / sigma)

    def _run(self, state: State) -> _Run:
        """The current run, or a new one that begins at ``state``."""
        kept: Plan | _Run | None = state.memory.get(self)
        if isinstance(kept, _Run) and kept.goes_on(state):
            return kept
        if kept is None:
            kept = self._plan(state.backend.schedule, state.num_inference_steps)
        plan = kept.plan if isinstance(kept, _Run) else kept
        if state.position > 0:
            self._require_one_evaluation(plan)
        index, where = plan.index(state.t), (state.position, state.selections)
        scheduler = plan.begin(index)
        own = scale(scheduler, index)
        run = _Run(plan, scheduler, index, index, *where, state.x, own)
        state.memory[self] = run
        return run

    def _plan(self, schedule: Schedule, num_steps: int) -> Plan:
        """The plan, kept because every run needs it."""
        if self._planned is None or self._planned[:2] != (schedule, num_steps):
            plan = plan_of(self.scheduler, self._family, schedule, num_steps)
            self._planned = schedule, num_steps, plan
        return self._planned[2]

    def _require_one_evaluation(self, plan: Plan) -> None:
        if not plan.one_evaluation:
            raise ValueError(
                f"{type(self.scheduler).__name__} evaluates several times a step, so that plugins "
                "cannot start, walk, jump or select images inside its plan. Use Heun() or a "
                "one-evaluation scheduler."
            )

    def _output(self, run: _Run, estimate: Estimate, shown: tuple[float, float]) -> Tensor:
        """The network output that the scheduler expects."""
        prediction = self._family.prediction(run.scheduler)
        if prediction == estimate.kind and _alike(
            prediction.row(*shown), prediction.row(*estimate.schedule.at(estimate.t))
        ):
            output = estimate.prediction
        else:
            output = prediction.target(estimate.x0, estimate.noise, *shown)
        if not self._learns_variance:
            return output
        if estimate.variance is None:
            raise ValueError(
                f"{type(self.scheduler).__name__} expects a learned variance and the backend has "
                "none. Configure it with variance_type='fixed_small'."
            )
        return torch.cat([output, estimate.variance], 1)

    def _further(self, run: _Run, state: State) -> dict[str, Any]:
        """Further arguments of some schedulers' steps."""
        further: dict[str, Any] = {}
        if "generator" in self._accepted:
            further["generator"] = list(state.generators)
        if "prev_timestep" in self._accepted:  # of UnCLIP, whose default is t - 1
            following = run.scheduler.timesteps[run.index + 1 :]
            further["prev_timestep"] = next(iter(following), None)
        if "order" in self._accepted:  # of LMS, whose default assumes a run from 0
            further["order"] = min(4, run.index - run.begun + 1)
        return further


@contextmanager
def _correcting(scheduler: Any, name: str | None, left: Tensor, x: Tensor) -> Iterator[None]:
    """During a step, keep the corrector from images that plugins changed since the last step.

    It would recompute such an image from earlier ones, and undo the change. ``name`` is its method,
    ``left`` the image after the last step, ``x`` the image now.
    """
    if name is None:
        yield
        return
    correct = getattr(scheduler, name)
    same = (x == left).flatten(1).all(1)[:, None, None, None]

    def corrected(**given: Any) -> Tensor:
        return torch.where(same, correct(**given), given["this_sample"])

    setattr(scheduler, name, corrected)
    try:
        yield
    finally:
        delattr(scheduler, name)


def _alike(one: Sequence[Amplitude], other: Sequence[Amplitude]) -> bool:
    """Whether numbers are equal but for the rounding of float64."""
    pairs = zip(one, other, strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-14, abs_tol=1e-14) for a, b in pairs)


def _scaled(x: Tensor, factor: float) -> Tensor:
    """x times a factor; x itself for a factor of one."""
    return x if _alike([factor], [1.0]) else x * factor


def _mixed(amplitudes: tuple[float, float], x0: Tensor, noise: Tensor) -> Tensor:
    """alpha x_0 + sigma noise."""
    alpha, sigma = amplitudes
    return alpha * x0 + sigma * noise
