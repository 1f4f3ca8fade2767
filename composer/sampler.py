"""The sampling loop."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from inspect import isgenerator
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from composer import recipes, stack
from composer.backends import Backend
from composer.driver import Model, drive, resolve, together
from composer.images import to_tensor
from composer.requests import Estimate, Request
from composer.result import Result, Stats
from composer.schedules import renoise
from composer.state import State, draw

if TYPE_CHECKING:
    from composer.registry import Registry
    from composer.solvers import Solver


class Sampler:
    """One backend, one solver, and a stack of plugins around them.

    ``plugins=[outer, ..., inner]`` reads like function composition: what ``outer`` asks is
    answered by the plugins after it, and what the innermost asks by the model.

    Args:
        backend: the model, from :func:`composer.load_backend` or your own.
        plugins: objects with methods marked ``@composer.hookimpl``.
        solver: how a step is taken; None for the backend's own default.
        num_inference_steps: steps from noise to image, at least 1.
        max_rows: memory bound: most images the network sees at once. None for no bound.

    Raises:
        ValueError, TypeError: the stack cannot work, with the plugin, the reason and the mend.
    """

    def __init__(
        self,
        backend: Backend,
        plugins: Iterable[object] = (),
        solver: Solver | None = None,
        num_inference_steps: int = 20,
        max_rows: int | None = None,
    ) -> None:
        self.backend = stack.checked_backend(backend)
        self.plugins = stack.checked_plugins(plugins)
        self.solver = stack.checked_solver(solver) if solver else backend.default_solver
        self.num_inference_steps = stack.at_least_one("num_inference_steps", num_inference_steps)
        self.max_rows = None if max_rows is None else stack.at_least_one("max_rows", max_rows)
        self.times = self.solver.times(backend.schedule, self.num_inference_steps)
        self._hooks = stack.hooked([*self.plugins, self.solver])
        self._noise_estimates = stack.noise_estimates(self._hooks)
        stack.check_conditions(self)
        self._hooks.hook.check(sampler=self)

    def sample(
        self, condition: Any = None, seeds: Iterable[int] = (0,), progress: bool = False
    ) -> Result:
        """Run the loop to its end.

        Args:
            condition: what to make, in the backend's terms; None leaves it to the plugins.
            seeds: one image a seed, each a function of its own seed alone.
            progress: show a progress bar.
        """
        began, stats = time.perf_counter(), Stats()
        state = self._begin(condition, seeds)
        steps = tqdm(self._run(state, stats), total=self._planned(state), disable=not progress)
        for state in steps:
            pass
        stats.seconds = time.perf_counter() - began
        describe = partial(recipes.describe, self, condition, state.seeds)
        return Result(state.x, state.seeds, stats, describe)

    def stream(self, condition: Any = None, seeds: Iterable[int] = (0,)) -> Iterator[State]:
        """The state after every step; arguments as for :meth:`sample`.

        Arguments are checked at once, before the first state is asked for.
        """
        return self._run(self._begin(condition, seeds), Stats())

    def denoise(
        self, x: Tensor, t: float, condition: Any = None
    ) -> Estimate:
        """One-step denoising: the stack's estimate at (x, t); ``.x0`` is the clean image.

        Args:
            x: a noised image (B, C, H, W), for example ``backend.schedule.add_noise(x0, noise, t)``.
            t: its time on the backend's schedule.
        """
        images = to_tensor(x, "x").to(self.backend.device, self.backend.dtype)
        with torch.no_grad():
            (estimate,) = self._answer([Request(images, t, condition, schedule=self.backend.schedule)], Stats())
        return estimate

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any], registry: Registry | None = None) -> Sampler:
        """The sampler that a ``result.recipe`` describes; only registered names are loaded."""
        return recipes.build(recipe, registry)

    def _run(self, state: State, stats: Stats) -> Iterator[State]:
        for state.step in count():
            self._advance(state, stats)
            self._hooks.hook.post_step(state=state)
            if state.finished:
                self._hooks.hook.finish(state=state)
            yield state.snapshot()
            if state.finished:
                return

    @torch.no_grad()
    def _advance(self, state: State, stats: Stats) -> None:
        """Jump back where the plan says so, then take one step t -> t_next towards the data."""
        level = self.backend.schedule.noise_level
        while level(state.t_next) > level(state.t):
            state.x = renoise(
                self.backend.schedule, state.x, state.randn(), state.t, state.t_next
            )
            state.position += 1
            state.estimate = None
        request = state.request(state.x, state.t)
        (estimate,) = self._answer([request], stats)
        stepped = self._hooks.hook.step(state=state, estimate=estimate)
        if isgenerator(stepped):  # a solver with further evaluations, such as Heun
            stepped = self._drive(stack.asking(stepped, self._noise_estimates, self.solver), stats)
        state.x = stepped
        state.estimate = estimate
        state.position += 1

    def _answer(self, requests: Sequence[Request], stats: Stats) -> list[Estimate]:
        return self._drive(together([resolve(r, self._noise_estimates) for r in requests]), stats)

    def _drive(self, asking: Any, stats: Stats) -> Any:
        return drive(asking, Model(self.backend, self.max_rows, stats))

    def _begin(self, condition: Any, seeds: Iterable[int]) -> State:
        stack.check_condition(self, condition)
        chosen = checked_seeds(seeds)
        generators = tuple(torch.Generator().manual_seed(seed) for seed in chosen)
        state = State(
            x=draw(generators, self.backend),
            times=list(self.times),
            condition=condition,
            seeds=chosen,
            backend=self.backend,
            num_inference_steps=self.num_inference_steps,
            generators=generators,
        )
        with torch.no_grad():
            self._hooks.hook.start(state=state)
        return state

    def _planned(self, state: State) -> int:
        levels = [self.backend.schedule.noise_level(t) for t in state.times]
        return sum(b <= a for a, b in zip(levels, levels[1:], strict=False))


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds as a tuple of integers, or a sentence that says what is wrong with them."""
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be a sequence of integers such as [0] or range(8), got {seeds!r}")
    chosen = []
    for seed in seeds:
        try:
            chosen.append(operator.index(seed))
        except TypeError:
            raise TypeError(f"seeds must be integers, got {seed!r}") from None
        if isinstance(seed, bool) or not 0 <= chosen[-1] < 2**63:
            raise ValueError(f"seeds must be integers from 0 to 2**63 - 1, got {seed!r}")
    if not chosen:
        raise ValueError("seeds is empty; give one seed for each image, for example range(8)")
    return tuple(chosen)
