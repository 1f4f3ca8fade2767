"""Jumps back to noise: a plan that comes down several times."""

from __future__ import annotations

from composer.limits import require_plan


def with_jumps(times: list[float], jump_length: int, resamples: int) -> list[float]:
    """RePaint's plan: at every ``jump_length``-th time before the last stretch, go back
    ``jump_length`` times and come down again, ``resamples - 1`` times.

    With n steps this is get_schedule_jump of the paper's code: (20, 5, 4) makes 65 model calls,
    (50, 10, 2) 90, (250, 10, 10) 2410.
    """
    last = len(times) - 2  # index of the last noisy time
    turns = {last - j for j in range(0, last + 1 - jump_length, jump_length)}
    require_plan(len(times) + len(turns) * (jump_length + 1) * (resamples - 1), "resamples")
    plan: list[float] = []
    for index, time in enumerate(times):
        plan.append(time)
        if index in turns:
            plan += times[index - jump_length : index + 1] * (resamples - 1)
    return plan
