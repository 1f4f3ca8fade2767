"""Recurrence: each step taken several times, with fresh noise in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from composer import Plugin, State, hookimpl
from composer.arguments import integer, interval, within
from composer.limits import MAX_WALKS, require_plan


@dataclass(frozen=True, eq=False)
class Recurrence(Plugin):
    """Take each step ``times`` times: from t to s, back to t by fresh noise, and to s again.

    The loop's jump draws x_t given x_s, so noise and image come to agree after guidance that moved
    one without the other. It helps strong guidance by a loss (``TFG``, ``DPS``, ``Steer``, views),
    at ``times`` times the rows. A solver of several steps begins anew at each jump.

    Ye et al. 2024, "TFG: Unified Training-Free Guidance for Diffusion Models", arXiv 2409.15761,
    algorithm 1, where it is N_recur; the self-recurrence of Bansal et al. 2023, "Universal Guidance
    for Diffusion Models", arXiv 2302.07121, and the time-travel of FreeDoM, arXiv 2303.09833.

    Args:
        times: 1 to 1000; 1 changes nothing.
        interval: noise levels (low, high) within [0, 1] from which steps are repeated.
    """

    times: int = 2
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        integer(self.times, "Recurrence: times", least=1, most=MAX_WALKS)
        interval(self.interval, "Recurrence: interval")

    @hookimpl(trylast=True)  # after other plugins have changed the plan
    def start(self, state: State) -> None:
        require_plan(len(state.times) * (2 * self.times - 1), "Recurrence: times")
        schedule = state.backend.schedule
        plan = state.times[:1]
        for t, s in pairwise(state.times):
            level = schedule.noise_level(t)
            repeated = schedule.noise_level(s) < level and within(level, self.interval)
            plan += [s, *[t, s] * (self.times - 1)] if repeated else [s]
        state.times = plan
