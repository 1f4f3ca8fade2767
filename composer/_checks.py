"""Checks of a Sampler's arguments. They raise before any model call."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from composer.arguments import integer, lacking
from composer.errors import owned, shown
from composer.hooks import hooked, noise_estimates
from composer.latents import is_latent
from composer.limits import MAX_STEPS
from composer.markers import answers
from composer.named import with_objects
from composer.plugin import (
    conditions_of,
    declared,
    hooks_of,
    is_nested,
    kind_of,
    sets_conditions,
    with_nested,
)
from composer.protocols import Backend, Solver, Stack
from composer.registry import installed
from composer.requests import UNCONDITIONAL, Each


def checked_backend(backend: Backend) -> Backend:
    if isinstance(backend, str):
        raise TypeError(
            f"Sampler: backend must be a backend object, got {shown(backend)}. Write "
            f"composer.load_backend({backend!r})."
        )
    if isinstance(backend, type):
        name = backend.__name__
        raise TypeError(f"Sampler: backend must be an object, got the class. Write {name}(...).")
    if lacks := lacking(backend, Backend):
        raise TypeError(
            f"Sampler: backend must be a backend, got {type(backend).__name__}. It lacks "
            f"{', '.join(lacks)}."
        )
    return with_objects(backend)


def stack_of(
    backend: Backend, plugins: Iterable[object], solver: Solver | None, num_inference_steps: int
) -> Stack:
    """Check a Sampler's arguments and return their stack."""
    backend, chosen = checked_backend(backend), checked_plugins(plugins)
    solver = checked_solver(backend.default_solver if solver is None else solver)
    steps = integer(num_inference_steps, "num_inference_steps", least=1, most=MAX_STEPS)
    stack = Stack(backend, chosen, solver, tuple(solver.times(backend.schedule, steps)), steps)
    check_unique(stack)
    check_pixels(stack)
    return stack


def checked_solver(solver: Solver) -> Solver:
    if lacking(solver, Solver):
        got = repr(solver) if isinstance(solver, str | type) else type(solver).__name__
        raise TypeError(
            f"Sampler: solver must be a solver object with times() and step(), got {got}. Give for "
            "example Heun(), or DiffusersSolver(scheduler) around a diffusers scheduler."
        )
    return solver


_NO_PLUGINS = list, tuple, set, frozenset, bytes, numbers.Number, type(None)
"""Kinds of values whose methods nobody can mark as hooks."""


def checked_plugins(plugins: Iterable[object]) -> tuple[object, ...]:
    if isinstance(plugins, str | Mapping) or not isinstance(plugins, Iterable):
        raise TypeError(f"Sampler: plugins must be a list of plugins, got {shown(plugins)}.")
    chosen = tuple(plugins)
    for plugin in chosen:
        if isinstance(plugin, _NO_PLUGINS) and not hooks_of(plugin):  # a named tuple may have some
            raise TypeError(
                "Sampler: plugins must be a flat list of plugin objects, got one with "
                f"{shown(plugin)} in it."
            )
        if isinstance(plugin, str):
            made = getattr(installed().find("plugin", plugin).factory, "__name__", plugin)
            raise TypeError(
                f"Sampler: plugins must be objects, got {shown(plugin)}. Write {made}(...)."
            )
        if isinstance(plugin, Mapping):
            raise TypeError(
                f"Sampler: plugins must be objects, got {shown(plugin)}. Load a recipe with "
                "Sampler.from_recipe."
            )
        if isinstance(plugin, type):
            raise TypeError(
                f"Sampler: plugins must be objects, got the class {plugin.__name__}. "
                f"Write {plugin.__name__}(...)."
            )
        if answers(plugin, "step") and callable(getattr(plugin, "times", None)):
            name = type(plugin).__name__
            raise TypeError(f"Sampler: {name} is a solver. Pass it as solver={name}(...).")
        for name in ("conditions", "transforms"):
            if not isinstance(declared(plugin, name), Sequence):
                raise TypeError(
                    f"{type(plugin).__name__}: {name} must be a list or tuple. It is a declaration "
                    "of composer.Plugin, so rename an attribute that means something else."
                )
    return chosen


def check_unique(stack: Stack) -> None:
    """Raise a ValueError if two plugins of a stack declare the same ``unique``."""
    doing: dict[str, object] = {}
    for plugin in with_nested(stack.plugins):
        what = declared(plugin, "unique")
        if what and (other := doing.setdefault(what, plugin)) is not plugin:
            first, second = type(other).__name__, type(plugin).__name__
            names = f"two {first}" if first == second else f"{first} and {second}"
            raise ValueError(f"{names} in one stack both {what}. Keep one of them.")


def check_pixels(stack: Stack) -> None:
    """Raise a ValueError for a plugin of pixels in a stack over latents."""
    if not is_latent(stack.backend):
        return
    for plugin in with_nested(stack.plugins):
        if declared(plugin, "needs_pixels"):
            instead = declared(plugin, "over_latents")
            advice = f"Use {instead} in its place" if instead else "Remove it"
            raise ValueError(
                f"{type(plugin).__name__} works on pixels and {type(stack.backend).__name__} on "
                f"latents, and what it does to pixels does not commute with the decoder. {advice}, "
                "or in a Cascade run this stage as Stage(..., plain=True)."
            )


def check_ancestral(stack: Stack) -> None:
    """Raise a ValueError if a plugin needs the noise of the reverse SDE and the solver has none."""
    if declared(stack.solver, "ancestral"):
        return
    for plugin in with_nested(stack.plugins):
        if declared(plugin, "needs_ancestral"):
            raise ValueError(
                f"{type(plugin).__name__}: solver must draw the noise of the reverse SDE, got "
                f"{type(stack.solver).__name__}. Use solver=DDPM() or DDIM(eta=1)."
            )


def check_conditions(stack: Stack) -> None:
    """Encode every condition of the stack; raise a ValueError if two plugins set the same ones."""
    deciders = [plugin for plugin in stack.plugins if sets_conditions(plugin)]
    if len(deciders) > 1:
        outer, inner = (type(plugin).__name__ for plugin in deciders[:2])
        raise ValueError(
            f"{outer} and {inner} both set conditions, and those of {inner} would be ignored. Put "
            f"one inside the other in place of a condition, as {outer}({{view: {inner}(...)}})."
        )
    for plugin in with_nested(stack.plugins):
        _check_conditions_of(stack, plugin)


def _check_conditions_of(stack: Stack, plugin: object) -> None:
    owner = type(plugin).__name__
    for condition in conditions_of(plugin):
        if isinstance(condition, type):
            raise TypeError(
                f"{owner}: condition must be an object, got {shown(condition)}. Make an object of "
                "the class."
            )
        if not hooks_of(condition):
            check_encodable(stack.backend, condition, owner)
            continue
        name = type(condition).__name__
        if "noise_estimate" not in hooks_of(condition):
            raise ValueError(
                f"{owner}: {name} has no noise_estimate and cannot stand in place of a condition. "
                "Put it in the list of plugins."
            )
        if others := sorted(hooks_of(condition) - {"noise_estimate", "check"}):
            raise ValueError(
                f"{owner}: {name} answers {', '.join(others)} and cannot stand in place of a "
                "condition. Put it in the list of plugins."
            )
        manager = hooked([condition])
        noise_estimates(manager)
        manager.hook.check(stack=stack, sampler=stack)
    kinds = {kind_of(c, stack.backend.prediction) for c in conditions_of(plugin)}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.name for kind in kinds))
        raise ValueError(
            f"{owner} would combine estimates of the kinds {names}. Put a plugin that works on x_0 "
            "or noise into all branches, or around them."
        )


def check_condition(stack: Stack, condition: Any) -> None:
    """Raise an error if the backend cannot encode a call's condition, or a plugin sets it."""
    if condition is None:
        return
    if is_nested(condition):
        raise TypeError(
            f"Sampler: condition must be a condition, got the plugin {type(condition).__name__}. "
            "Put it in the list of plugins."
        )
    for plugin in stack.plugins:
        if sets_conditions(plugin) and condition is not UNCONDITIONAL:
            raise ValueError(
                f"Sampler: condition={condition!r} would replace the conditions that "
                f"{type(plugin).__name__} sets. Leave it None, or remove them from the plugin."
            )
    check_encodable(stack.backend, condition, "condition")


def check_encodable(backend: Backend, condition: Any, owner: str) -> None:
    """Raise an error unless a condition is hashable and the backend can encode it."""
    try:
        hash(condition)
    except TypeError:
        raise TypeError(
            f"{owner}: a condition must be hashable, got {type(condition).__name__}. Give one per "
            "seed as sample(condition=[...]), or as Each([...]) in a plugin."
        ) from None
    with owned(owner):
        for one in condition.conditions if isinstance(condition, Each) else (condition,):
            if one is None or isinstance(one, Each) or is_nested(one):
                raise TypeError(
                    f"each of several conditions must be a condition, got {shown(one)}. "
                    "UNCONDITIONAL means no condition."
                )
            backend.encode(one)


def checked_condition(stack: Stack, condition: Any) -> Any:
    """The condition of a call, with a list of one per seed as an Each.

    Raises:
        TypeError, ValueError: see :func:`check_condition`.
    """
    several = type(condition) in (list, tuple, range)  # a tuple of a class of its own may be one
    chosen = Each([_number(one) for one in condition]) if several else _number(condition)
    check_condition(stack, chosen)
    return chosen


def _number(condition: Any) -> Any:
    """A tensor of one whole number as that number, which a recipe then shows."""
    single = isinstance(condition, Tensor) and condition.ndim == 0
    return condition.item() if single and not condition.is_floating_point() else condition


def check_one_a_seed(stack: Stack, condition: Any, seeds: int) -> None:
    """Raise a ValueError if the call or a plugin has values per seed of another number."""
    named = [("condition", condition)]
    for plugin in with_nested(stack.plugins):
        owner = type(plugin).__name__
        named += [(f"{owner}: a condition", given) for given in conditions_of(plugin)]
        for name in declared(plugin, "one_a_seed"):
            values = getattr(plugin, name)
            if count_of(values) not in (1, seeds):
                raise ValueError(
                    f"{owner}: {name} must be one number, or one per seed, {seeds} in all, got "
                    f"{count_of(values)}."
                )
    for owner, given in named:
        if isinstance(given, Each) and len(given) != seeds:
            raise ValueError(
                f"{owner} must be one for all, or one per seed, {seeds} in all, got {len(given)}."
            )


def count_of(values: Any) -> int:
    """The number of values; 1 for a number."""
    return len(values) if getattr(values, "ndim", None) != 0 and hasattr(values, "__len__") else 1
