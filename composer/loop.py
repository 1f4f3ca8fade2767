"""The loop: the steps of one run, each an estimate and a new x."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pluggy
import torch

from composer import _run_checks
from composer.driver import NoiseEstimate, converse, resolve
from composer.errors import unstopped
from composer.latents import image_shape_of
from composer.lent import version
from composer.model import Model
from composer.protocols import State
from composer.requests import Estimate, Request
from composer.schedules import renoise


@dataclass(frozen=True, eq=False)
class Loop:
    """The parts that every step of a run needs.

    Args:
        hooks: the hooks of the stack.
        noise_estimates: the ``noise_estimate`` hooks, outermost first.
        model: answers the requests of the innermost plugin.
        debug: whether to check after every hook.
    """

    hooks: pluggy.PluginManager
    noise_estimates: Sequence[NoiseEstimate]
    model: Model
    debug: bool = False

    def steps(self, state: State) -> Iterator[State]:
        """Yield the state after every step; at the end raise an error unless all was finite."""
        while True:
            try:
                self._advance(state)
            except Exception:
                self.model.finiteness.require()  # NaN or Inf may have caused the error
                raise
            if state.finished:
                self.model.finiteness.require()
            yield state
            if state.finished:
                return
            state.step += 1

    def streamed(self, state: State, reader: str) -> Iterator[State]:
        """Yield snapshots of a run; the reader may change their x or call ``stop()``.

        Args:
            reader: its name for messages.
        """
        for _ in self.steps(state):
            with torch.inference_mode(False):  # in which tensors do not count what writes into them
                shown = state.snapshot()
            given, written = shown.x, version(shown.x)
            yield shown
            # Otherwise the same object: a solver of several steps asks whether x was replaced.
            if shown.x is not given or version(given) != written:
                shape = image_shape_of(state.backend) if state.finished else None
                state.x = _run_checks.checked_image(
                    shown.x, state, reader, self.model.finiteness, shape
                ).clone()
            if state.finished:
                self.model.finiteness.require()
                return
            if shown.stopped:
                state.stop()
                self._finish(state)
                self.model.finiteness.require()
                vars(shown).update(vars(state.snapshot()))

    @torch.no_grad()
    def _advance(self, state: State) -> None:
        """Jump back to noise where the plan does, then step from t to the cleaner t_next."""
        schedule, hook, finiteness = state.backend.schedule, self.hooks.hook, self.model.finiteness
        while schedule.goes_back(state.t, state.t_next):
            state.x = renoise(schedule, state.x, state.randn(), state.t, state.t_next)
            state.position += 1
            state.estimate = None
        estimate = self._estimate(state.request(state.x, state.t))
        stepped: Any = unstopped(partial(hook.step, state=state, estimate=estimate), "step")
        if isinstance(stepped, Generator):  # a solver with further evaluations, such as Heun
            stepped = converse(stepped, self.noise_estimates, self.model, "step", self.debug)
        state.x = _run_checks.checked_image(stepped, state, "step", finiteness)
        state.estimate = estimate
        state.position += 1
        if hook.post_step.get_hookimpls():
            self._post_step(state)
        if state.finished:
            self._finish(state)

    def _post_step(self, state: State) -> None:
        plan = list(state.times)
        unstopped(partial(self.hooks.hook.post_step, state=state), "post_step")
        _run_checks.check_plan_kept(state, plan)
        _run_checks.checked_image(state.x, state, "post_step", self.model.finiteness)

    @torch.no_grad()
    def _finish(self, state: State) -> None:
        unstopped(partial(self.hooks.hook.finish, state=state), "finish")
        _run_checks.check_finished(state, self.model.finiteness)

    def _estimate(self, request: Request) -> Estimate:
        estimate = resolve(request, self.noise_estimates, self.model, self.debug)
        request.forget_views()
        return estimate
