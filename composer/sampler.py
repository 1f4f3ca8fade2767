"""The Sampler: a stack, checked once, and its runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypedDict, Unpack, overload

import torch
from torch import Tensor
from tqdm import tqdm

from composer import _call_checks, _checks, _run_checks, recipes
from composer._watch import watched
from composer.arguments import checked_seeds, switch
from composer.denoised import Denoised, requests_at
from composer.driver import asked, converse
from composer.errors import unstopped
from composer.finiteness import Finiteness
from composer.hooks import hooked, noise_estimates
from composer.loop import Loop
from composer.model import Model
from composer.plugin import hooks_of, views_of
from composer.protocols import Backend, Solver, Stack, State, initial_noise
from composer.registry import Registry
from composer.requests import Estimate
from composer.result import Result
from composer.row_bounds import MaxRows, checked_max_rows
from composer.stats import Stats
from composer.words import short


class Sampler:
    """One backend, one solver, and a stack of plugins around them.

    ``plugins=[outer, ..., inner]`` reads like function composition: each plugin's requests go to
    the plugins after it, and those of the innermost to the model.

    Args:
        backend: the model, from :func:`composer.load_backend` or your own.
        plugins: objects with methods marked ``@composer.hookimpl``.
        solver: takes the steps; None for the backend's default solver.
        num_inference_steps: steps from noise to image, 1 to 10,000.
        max_rows: memory bound: most images in one call of the network. None for no bound. "auto"
            is the fastest: no bound but on a CPU, where large images are computed a few at a time.
            Images are the same up to rounding, which may differ with the number of rows in a call;
            with the same seeds, arguments and machine they are the same bit for bit.
        debug: check after every hook, and name the plugin that made NaN or Inf, or wrote into a
            tensor; each check waits for the device. Otherwise a run is checked once, at its end.

    Raises:
        ValueError, TypeError: the stack cannot work; the message names the plugin, the reason and
            what to do.
    """

    def __init__(
        self,
        backend: Backend,
        plugins: Iterable[object] = (),
        solver: Solver | None = None,
        num_inference_steps: int = 20,
        max_rows: MaxRows = "auto",
        debug: bool = False,
    ) -> None:
        self._stack = _checks.stack_of(backend, plugins, solver, num_inference_steps)
        self._debug = switch(debug, "debug")
        self._max_rows = checked_max_rows(max_rows)
        # As given, so that replace(backend=...) uses the new backend's default solver.
        self._given = _Arguments(
            backend=backend,
            plugins=self.plugins,
            solver=solver,
            num_inference_steps=self.num_inference_steps,
            max_rows=self._max_rows,
            debug=debug,
        )
        # A backend may answer hooks, such as thresholding for its model; it is outermost.
        own = [backend] if hooks_of(backend) else []
        hooks = hooked([*own, *self.plugins, self.solver])
        self._noise_estimates = noise_estimates(hooks)
        _checks.check_conditions(self._stack)
        hooks.hook.check(stack=self._stack, sampler=self._stack)
        _checks.check_ancestral(self._stack)
        self._hooks = watched(hooks) if debug else hooks

    def __repr__(self) -> str:
        plugins = ", ".join(map(short, self.plugins))
        steps = f"num_inference_steps={self.num_inference_steps}"
        return f"Sampler({short(self.backend)}, [{plugins}], {short(self.solver)}, {steps})"

    def __reduce__(self) -> tuple[Any, ...]:  # pluggy's manager cannot be copied or pickled
        return _made, (type(self), self._given)

    def replace(self, **changes: Unpack[_Arguments]) -> Sampler:
        """A sampler with some of the arguments changed, such as ``num_inference_steps=50``."""
        arguments: _Arguments = {**self._given, **changes}
        return type(self)(**arguments)

    @property
    def stack(self) -> Stack:
        """Backend, plugins, solver and times; frozen."""
        return self._stack

    @property
    def backend(self) -> Backend:
        return self._stack.backend

    @property
    def plugins(self) -> tuple[object, ...]:
        return self._stack.plugins

    @property
    def solver(self) -> Solver:
        return self._stack.solver

    @property
    def times(self) -> list[float]:
        """The plan, before any ``start`` hook changes it."""
        return list(self._stack.times)

    @property
    def num_inference_steps(self) -> int:
        return self._stack.num_inference_steps

    @property
    def max_rows(self) -> MaxRows:
        return self._max_rows

    def sample(
        self,
        condition: Any = None,
        seeds: Iterable[int] = (0,),
        progress: bool = False,
        *,
        x: Tensor | None = None,
        t: float | Tensor | None = None,
        callback: Callable[[State], None] | None = None,
    ) -> Result:
        """Run the loop to its end.

        Args:
            condition: what to make, in the backend's terms, or a list of one per seed; None leaves
                it to the plugins.
            seeds: one per image; each image depends on its own seed alone.
            progress: show a progress bar.
            x: noised images (B, C, H, W) to begin with in place of noise; one per seed, or one.
            t: the time of x, one of :attr:`times`; the run takes the steps from there on. None for
                the first time, where x is the initial noise.
            callback: called after each step with a state as in :meth:`stream`; must return None.
                What it makes of ``state.x`` after the last step is the result's ``x``.
        """
        _call_checks.check_callback(callback)
        began, model = time.perf_counter(), self._model()
        state = self._begin(condition, seeds, model.finiteness, x, t)
        # Copy the arguments now: the caller may change them later.
        begun = {} if x is None else {"x": x, "t": None if t is None else state.t}
        draft = recipes.draft(self._stack, self._max_rows, state.condition, state.seeds, begun)
        loop = self._loop(model)
        states = loop.steps(state) if callback is None else loop.streamed(state, "callback")
        for shown in self._bar(states, state, progress):
            if callback is not None:
                _call_checks.check_returns_nothing(callback(shown))
        model.stats.seconds = time.perf_counter() - began
        views = views_of(self.plugins)
        return Result(state.x, state.seeds, model.stats, draft, views, state.condition)

    def stream(
        self,
        condition: Any = None,
        seeds: Iterable[int] = (0,),
        progress: bool = False,
        *,
        x: Tensor | None = None,
        t: float | Tensor | None = None,
    ) -> Iterator[State]:
        """Yield the state after every step; arguments as for :meth:`sample`, checked at once.

        Each state is a snapshot, which later steps do not change. The run continues from its ``x``,
        so you may write into ``x`` or replace it. ``state.stop()`` ends the stream after this state
        and runs the ``finish`` hooks on its ``x``. If you break out of the loop, they do not run.
        Earlier states no longer act on the run.

        The last state has the finished images, (B, *image_shape) of a latent model. What you make
        of its ``x`` is the end of the run: it is checked like the others and changed no further.
        """
        model = self._model()
        state = self._begin(condition, seeds, model.finiteness, x, t)
        states = self._loop(model).streamed(state, "the reader of the stream")
        return self._bar(states, state, progress)

    @overload
    def denoise(
        self, x: Tensor, t: float, condition: Any = None, origin: Sequence[int] | None = None
    ) -> Estimate: ...
    @overload
    def denoise(
        self, x: Tensor, t: Tensor, condition: Any = None, origin: Sequence[int] | None = None
    ) -> Estimate | Denoised: ...
    @torch.no_grad()
    def denoise(
        self,
        x: Tensor,
        t: float | Tensor,
        condition: Any = None,
        origin: Sequence[int] | None = None,
    ) -> Estimate | Denoised:
        """One-step denoising: the stack's estimate at (x, t); its ``x0`` is the clean image.

        Args:
            x: noised images (B, C, H, W), for example ``backend.schedule.add_noise(x0, noise, t)``.
            t: their time on the backend's schedule, a number or a tensor of one number; or (B,),
                one time per image, in one call of the backend.
            condition: as for :meth:`sample`; a list has one per seed.
            origin: for each image the number of its seed, counted from 0, where several images
                have one seed; None if image k has seed k. What a list or a plugin holds per seed
                goes by it.
        """
        condition = _checks.checked_condition(self._stack, condition)
        x = _call_checks.checked_images(x, self.backend)
        times = _call_checks.checked_times(t, len(x))
        seeds = _call_checks.checked_origin(origin, len(x))
        _checks.check_one_a_seed(self._stack, condition, max(seeds) + 1)
        requests, model = requests_at(x, times, condition, seeds, self.backend), self._model()
        estimates = converse(asked(requests), self._noise_estimates, model, "denoise", self._debug)
        model.finiteness.require()
        return Denoised.of(estimates) if isinstance(times, list) else estimates[0]

    @classmethod
    def from_recipe(
        cls,
        recipe: dict[str, Any],
        registry: Registry | None = None,
        *,
        backend: Backend | None = None,
        plugins: Mapping[int | str, object] | Sequence[object] | None = None,
        trust: recipes.Trust = (),
    ) -> Sampler:
        """Make the sampler that a ``result.recipe`` describes.

        A recipe may come from a stranger. It contains registered names only, its size is limited
        (:mod:`composer.limits`), and it sets only backend options that are declared safe. So it
        opens none of your files and uses no network.

        Args:
            recipe: the recipe, a dict.
            registry: the known names; None for those of the installed packages.
            backend: a model to use in place of the recipe's.
            plugins: {class name: object} for unregistered classes in the recipe, {index: object} to
                replace plugins of its list, or a list of all plugins.
            trust: further backend options that the recipe may set, such as ``["model"]``; True
                allows any backend and all its options. A backend may open and run what they name.

        Raises:
            ValueError, TypeError: it is not a recipe, exceeds a limit, needs trust, or describes a
                stack that cannot work.
            UnknownNameError, LookupError: it contains a name that is not registered.
        """
        errors = ValueError, TypeError, LookupError
        with recipes.documented("Recipe: it makes no sampler", *errors):
            arguments = recipes.arguments_of(
                recipe, registry, backend=backend, plugins=plugins, trust=trust
            )
            return cls(**arguments)

    def _bar(self, states: Iterator[State], state: State, progress: bool) -> Iterator[State]:
        """The states, with a progress bar if it is to be shown."""
        if not switch(progress, "progress"):
            return states
        goes_back = self.backend.schedule.goes_back
        total = sum(not goes_back(t, s) for t, s in pairwise(state.times))
        return iter(tqdm(states, total=total))

    def _loop(self, model: Model) -> Loop:
        return Loop(self._hooks, self._noise_estimates, model, self._debug)

    def _model(self) -> Model:
        return Model(self.backend, self.max_rows, Stats(), Finiteness(at_once=self._debug))

    def _begin(
        self,
        condition: Any,
        seeds: Iterable[int],
        finiteness: Finiteness,
        x: Tensor | None,
        t: float | Tensor | None,
    ) -> State:
        condition = _checks.checked_condition(self._stack, condition)
        chosen, place = checked_seeds(seeds), _call_checks.checked_place(self._stack, x, t)
        _checks.check_one_a_seed(self._stack, condition, len(chosen))
        generators = tuple(torch.Generator().manual_seed(seed) for seed in chosen)
        state = State(
            x=initial_noise(generators, self.backend),
            times=self.times[place:],
            condition=condition,
            seeds=chosen,
            backend=self.backend,
            num_inference_steps=self.num_inference_steps,
            generators=generators,
        )
        if x is not None:  # after the draw above, so that later draws are the same
            given = state.each(_call_checks.checked_images(x, self.backend), "x")
            state.x = given.expand_as(state.x).clone()
        with torch.no_grad():
            unstopped(partial(self._hooks.hook.start, state=state), "start")
        _run_checks.checked_image(state.x, state, "start", finiteness)
        return _run_checks.checked_start(state)


class _Arguments(TypedDict, total=False):
    """The arguments of :class:`Sampler`."""

    backend: Backend
    plugins: Iterable[object]
    solver: Solver | None
    num_inference_steps: int
    max_rows: MaxRows
    debug: bool


def _made(kind: type[Sampler], arguments: _Arguments) -> Sampler:
    return kind(**arguments)
