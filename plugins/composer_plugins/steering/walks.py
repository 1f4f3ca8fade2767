"""Walks at a fixed noise level: steps of the plan that stay at one time, taken by a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from composer import Estimate, Sampler, State
from composer.arguments import integer, interval
from composer.limits import MAX_WALKS, require_plan
from composer.stack import conditions_of, is_nested


@runtime_checkable
class Walker(Protocol):
    """A plugin that takes the steps t -> t."""

    def walk(self, state: State, estimate: Estimate) -> Tensor:
        """The next image at the same noise level."""
        ...


def require_walks(steps: int, levels: Sequence[float], owner: str) -> None:
    """Refuse a number of walks, or an interval of noise levels, that is none."""
    integer(steps, f"{owner}: steps", least=1, most=MAX_WALKS)
    interval(levels, f"{owner}: interval")


def check_walks(plugin: object, sampler: Sampler) -> None:
    """Refuse a second walker, and views of which a walk would see one only."""
    owner = type(plugin).__name__
    walkers = [type(p).__name__ for p in sampler.plugins if isinstance(p, Walker)]
    if len(walkers) > 1:
        raise ValueError(
            f"two {owner} in one stack; raise the steps of one of them"
            if len(set(walkers)) == 1
            else f"{' and '.join(walkers[:2])} in one stack both walk at each noise level; keep one"
        )
    if any(_alternates(p) for p in sampler.plugins):
        raise ValueError(
            f"{owner} and an Anagram with reduction='alternate' would each see one view only; "
            "use reduction='mean'"
        )


def plan_walks(state: State, steps: int, levels: Sequence[float]) -> None:
    """Stay ``steps`` times at each time whose noise level lies within ``levels`` and above 0."""
    low, high = levels
    require_plan(len(state.times) * (1 + steps), "walks")
    plan = state.times[:1]  # where x comes from needs no walk
    for time in state.times[1:]:
        level = state.backend.schedule.noise_level(time)
        plan += [time] * (1 + (steps if level > 0 and low <= level <= high else 0))
    state.times = plan


def _alternates(plugin: object) -> bool:
    """Whether a plugin, or one in place of a condition of it, takes its views in turn."""
    if getattr(plugin, "reduction", None) == "alternate":
        return True
    return any(_alternates(c) for c in conditions_of(plugin) if is_nested(c))
