"""Walks at a fixed noise level: a plugin takes steps that stay at one time of the plan."""

from __future__ import annotations

from collections.abc import Sequence

from composer.arguments import integer, interval, within
from composer.limits import MAX_WALKS, require_plan
from composer.plugin import declared, with_nested
from composer.protocols import Stack, State


def require_walks(steps: int, levels: Sequence[float], owner: str) -> None:
    """Raise an error unless ``steps`` is a number of walks and ``levels`` an interval."""
    integer(steps, f"{owner}: steps", least=1, most=MAX_WALKS)
    interval(levels, f"{owner}: interval")


def check_walks(plugin: object, stack: Stack) -> None:
    """Raise a ValueError if a walk would see one view only."""
    owner = type(plugin).__name__
    if any(declared(p, "alternates") for p in with_nested(stack.plugins)):
        raise ValueError(
            f"{owner} needs all views at each step, and Anagram(reduction='alternate') sends one. "
            "Use reduction='mean'."
        )


def plan_walks(state: State, steps: int, levels: Sequence[float]) -> None:
    """Repeat each time ``steps`` times if its noise level lies in ``levels`` and above 0."""
    require_plan(len(state.times) * (1 + steps), "walks")
    plan = state.times[:1]  # no walk at the time that x starts from
    for time in state.times[1:]:
        level = state.backend.schedule.noise_level(time)
        plan += [time] * (1 + (steps if level > 0 and within(level, levels) else 0))
    state.times = plan
