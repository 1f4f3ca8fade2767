"""Building and checking a stack of plugins: everything refused here costs no model call."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import pluggy

from composer import hookspecs
from composer.backends import Backend
from composer.driver import NoiseEstimate, require_generator
from composer.requests import UNCONDITIONAL
from composer.solvers import Solver

if TYPE_CHECKING:
    from composer.sampler import Sampler


def checked_backend(backend: Backend) -> Backend:
    if isinstance(backend, str):
        raise TypeError(
            f"backend must be a backend object; write composer.load_backend({backend!r})"
        )
    if not isinstance(backend, Backend):
        raise TypeError(
            f"{type(backend).__name__} is no backend; it lacks one of schedule, prediction, "
            "shape, device, dtype, default_solver, encode and evaluate"
        )
    return backend


def checked_solver(solver: Solver) -> Solver:
    if not isinstance(solver, Solver) or isinstance(solver, type):
        raise TypeError(
            f"solver must be a solver object with times() and step(), got {solver!r}; "
            "write for example Heun() or DiffusersSolver(scheduler)"
        )
    return solver


def checked_plugins(plugins: Iterable[object]) -> tuple[object, ...]:
    if isinstance(plugins, str) or not isinstance(plugins, Iterable):
        raise TypeError(f"plugins must be a list of plugin objects, got {plugins!r}")
    chosen = tuple(plugins)
    for plugin in chosen:
        if isinstance(plugin, type):
            raise TypeError(
                f"plugins must be objects, got the class {plugin.__name__}; "
                f"write {plugin.__name__}(...)"
            )
    return chosen


def at_least_one(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return number


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds as a tuple of integers, or a sentence that says what is wrong with them."""
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise TypeError(
            f"seeds must be a sequence of integers such as [0] or range(8), got {seeds!r}"
        )
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


def hooked(plugins: Sequence[object]) -> pluggy.PluginManager:
    """A manager that calls the plugins' hooks in the order of the list."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    # pluggy runs what was registered last first.
    for place, plugin in reversed([*enumerate(plugins)]):
        name = type(plugin).__name__
        if manager.is_registered(plugin):
            raise ValueError(f"the same {name} object is in plugins twice; make a second one")
        try:
            manager.register(plugin, name=f"{place}:{name}")
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} does not fit the hooks in composer.hookspecs ({reason}); "
                "mend the name or the arguments of its hook"
            ) from error
        if not manager.get_hookcallers(plugin):
            raise TypeError(f"{name} answers no hook; mark its methods with @composer.hookimpl")
    return manager


def noise_estimates(manager: pluggy.PluginManager) -> tuple[NoiseEstimate, ...]:
    """The generators of the stack, outermost first; pluggy orders them, the driver nests them."""
    implementations = reversed(manager.hook.noise_estimate.get_hookimpls())
    functions = [cast(NoiseEstimate, impl.function) for impl in implementations]
    for function in functions:
        require_generator(function)
    return tuple(functions)


def conditions_of(plugin: object) -> tuple[Any, ...]:
    """What a plugin fills into unspecified requests: its optional attribute ``conditions``."""
    return tuple(c for c in getattr(plugin, "conditions", ()) if c is not None)


def sets_conditions(plugin: object) -> bool:
    """Whether a plugin, or one nested in it, decides conditions."""
    return any(sets_conditions(c) if is_nested(c) else c is not None for c in conditions_of(plugin))


def is_nested(condition: Any) -> bool:
    return hasattr(condition, "noise_estimate")


def check_conditions(sampler: Sampler) -> None:
    """Encode every condition of the stack, and refuse two plugins that decide the same ones."""
    deciders = [plugin for plugin in sampler.plugins if sets_conditions(plugin)]
    if len(deciders) > 1:
        outer, inner = (type(plugin).__name__ for plugin in deciders[:2])
        raise ValueError(
            f"{outer} and {inner} both set conditions, and those of {inner} would be ignored; put "
            f"one inside the other, as {outer}({{view: {inner}(...)}}) or in place of a condition"
        )
    for plugin in sampler.plugins:
        _check_nested(sampler, plugin)


def _check_nested(sampler: Sampler, plugin: object) -> None:
    owner = type(plugin).__name__
    for condition in conditions_of(plugin):
        if isinstance(condition, type):
            raise TypeError(f"{owner}: give an object in place of a condition, not {condition!r}")
        if not _hooks_of(condition):
            _encode(sampler.backend, condition, owner)
            continue
        name = type(condition).__name__
        if others := sorted(_hooks_of(condition) - {"noise_estimate", "check"}):
            raise ValueError(
                f"{owner}: {name} answers {', '.join(others)} and cannot stand in place of a "
                "condition; put it in the list of plugins"
            )
        require_generator(condition.noise_estimate)
        if hasattr(condition, "check"):
            condition.check(sampler=sampler)
        _check_nested(sampler, condition)


def _hooks_of(thing: object) -> set[str]:
    """The names of the hooks that an object answers."""
    specs = (name for name, value in vars(hookspecs).items() if hasattr(value, "composer_spec"))
    return {name for name in specs if hasattr(getattr(thing, name, None), "composer_impl")}


def check_condition(sampler: Sampler, condition: Any) -> None:
    """Check the condition of a call: expressible, and not at odds with the stack."""
    if condition is None:
        return
    if is_nested(condition):
        raise TypeError(
            f"condition must be a condition, not the plugin {type(condition).__name__}; "
            "put it in the list of plugins"
        )
    for plugin in sampler.plugins:
        if sets_conditions(plugin) and condition is not UNCONDITIONAL:
            raise ValueError(
                f"condition={condition!r} would replace the conditions that "
                f"{type(plugin).__name__} sets; leave it None, or remove them from the plugin"
            )
    _encode(sampler.backend, condition, "condition")


def _encode(backend: Backend, condition: Any, owner: str) -> None:
    try:
        hash(condition)
    except TypeError:
        raise TypeError(
            f"{owner}: a condition must be hashable, got {type(condition).__name__}"
        ) from None
    try:
        backend.encode(condition)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{owner}: {error}") from error
