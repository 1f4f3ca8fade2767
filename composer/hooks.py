"""The hooks a plugin may answer. Mark methods with ``composer.hookimpl``; leave out arguments."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pluggy
from torch import Tensor

from composer.requests import Estimate, Request
from composer.state import State

if TYPE_CHECKING:
    from composer.offers import Register
    from composer.sampler import Sampler

PROJECT = "composer"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_plugins(register: Register) -> None:
    """Offer plugins, transforms, solvers and backends by name; called once a process."""


@hookspec
def check(sampler: Sampler) -> None:
    """Refuse, with a ValueError, a backend or a stack this plugin cannot work with.

    Called when the Sampler is built, before any model call.
    """


@hookspec
def start(state: State) -> None:
    """Change the initial noise ``state.x`` or the plan ``state.times``."""


@hookspec
def noise_estimate(  # type: ignore[empty-body]
    request: Request,
) -> Generator[list[Request], list[Estimate], Estimate]:
    """Answer a request by asking others: a generator, driven by :mod:`composer.driver`."""


@hookspec(firstresult=True)
def step(
    state: State, estimate: Estimate
) -> Tensor | Generator[list[Request], list[Estimate], Tensor] | None:
    """The image at ``state.t_next``; None leaves it to the next plugin, at last the solver.

    May be a generator that asks for further estimates, like ``noise_estimate``.
    """


@hookspec
def post_step(state: State) -> None:
    """After each step, x being at ``state.t``: project it, look at it, or ``state.stop()``."""


@hookspec
def finish(state: State) -> None:
    """After the last step, also of a run that was stopped."""
