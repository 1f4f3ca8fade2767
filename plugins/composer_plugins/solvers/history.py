"""The estimates of earlier steps, for solvers that use several."""

from __future__ import annotations

from composer import Estimate, State


def past_estimates(state: State, owner: object, estimate: Estimate, most: int) -> list[Estimate]:
    """This step's estimate and those of the steps before it, the newest first.

    The list begins anew after a jump or a walk. After images were dropped or copied, only the
    estimate of the step before remains, which follows them.

    Args:
        owner: the solver, under which the run remembers them.
        most: the largest number of estimates.
    """
    kept: list[Estimate] = state.memory.get(owner, [])
    before = state.estimate
    if before is None or before.t == estimate.t:  # a walk's, of another image at this time
        earlier = []
    else:
        earlier = kept if kept and kept[0] is before else [before]
    state.memory[owner] = [estimate, *earlier][:most]
    return state.memory[owner]  # type: ignore[no-any-return]
