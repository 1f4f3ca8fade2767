"""The checks of what hooks leave in a state during a run."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor

from composer.arguments import finite
from composer.finiteness import Finiteness
from composer.latents import image_shape_of
from composer.protocols import State


def checked_image(
    x: object,
    state: State,
    hook: str,
    finiteness: Finiteness,
    image: tuple[int, ...] | None = None,
) -> Tensor:
    """Return the x that a hook left; raise a TypeError unless it is a batch of the run's shape."""
    shape, dtype = (len(state.origin), *(image or state.backend.shape)), state.backend.dtype
    if not isinstance(x, Tensor) or x.shape != shape or x.dtype != dtype:
        what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{hook}: x must be a tensor {dtype} {shape}, got {what}.")
    finiteness.add(x, partial(_not_finite, hook, state.step))
    return x


def _not_finite(hook: str, step: int, image: int) -> str:
    return (
        f"x became NaN or Inf in {hook} at step {step} although the model's predictions were "
        "finite. Check the plugins, and very large scales."
    )


def checked_start(state: State) -> State:
    """Return the state after the ``start`` hooks; raise an error if no run can begin there."""
    _check_plan(state, "start")
    generators: object = state.generators
    if not isinstance(generators, list | tuple) or len(generators) != len(state.origin):
        raise ValueError(
            "start: state.generators must be a tuple of one generator per image, "
            f"{len(state.origin)} in all, got {generators!r:.80}."
        )
    return state


def _check_plan(state: State, hook: str) -> None:
    """Raise an error unless the times that a hook left are a plan of steps."""
    times = state.times
    if not isinstance(times, list | tuple):
        raise TypeError(f"{hook}: state.times must be a list of times, got {type(times).__name__}.")
    if len(times) < 2 or state.stopped:
        raise ValueError(f"{hook} left no step. Leave at least two times in state.times.")
    schedule = state.backend.schedule
    for time in times:
        schedule.at(finite(time, f"after {hook}, a time in state.times"))
    if schedule.goes_back(times[-2], times[-1]):
        raise ValueError(f"{hook}: state.times must end in a step, got a jump back to noise.")
    for time, following in pairwise(times):
        if schedule.noise_level(time) == 0 and not schedule.goes_back(time, following):
            raise ValueError(
                f"{hook}: state.times must not step from {time:g}, where the image is clean."
            )


def check_plan_kept(state: State, plan: list[float]) -> None:
    """Raise an error if a ``post_step`` hook changed the current or the last time of the plan.

    The run would return noise.
    """
    if state.stopped or state.times == plan:
        return
    _check_plan(state, "post_step")
    here, end = plan[state.position], plan[-1]
    if [*state.times[state.position : state.position + 1]] != [here] or state.times[-1] != end:
        raise ValueError(
            f"post_step: state.times must keep {here:g} at state.position, where x is, and end at "
            f"{end:g}. Call state.stop() to end a run early."
        )


def check_finished(state: State, finiteness: Finiteness) -> None:
    if state.origin != tuple(range(len(state.seeds))):
        raise ValueError(
            f"The run ended with {len(state.x)} images of {len(state.seeds)} seeds. A plugin that "
            "follows several images per seed must select one of them in its finish."
        )
    checked_image(state.x, state, "finish", finiteness, image_shape_of(state.backend))
