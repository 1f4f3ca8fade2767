"""Building and checking a stack of plugins: everything refused here costs no model call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pluggy
from torch import Tensor

from composer import hooks
from composer.arguments import finite
from composer.backends import Backend, image_shape_of
from composer.driver import NoiseEstimate, require_generator
from composer.dry_run import require_one_kind
from composer.errors import NonFiniteError
from composer.images import all_finite
from composer.registry import installed
from composer.requests import UNCONDITIONAL
from composer.solvers import Solver
from composer.state import State
from composer.transforms import Transform

if TYPE_CHECKING:
    from composer.sampler import Sampler


BACKEND = (
    *("schedule", "prediction", "shape", "device", "dtype", "default_solver"),
    *("encode", "evaluate"),
)
HOOKS = frozenset(name for name, value in vars(hooks).items() if hasattr(value, "composer_spec"))


def checked_backend(backend: Backend) -> Backend:
    if isinstance(backend, str):
        raise TypeError(
            f"backend must be a backend object; write composer.load_backend({backend!r})"
        )
    if isinstance(backend, type):
        raise TypeError(f"backend must be an object; write {backend.__name__}(...)")
    if not isinstance(backend, Backend):
        lacking = [name for name in BACKEND if not hasattr(backend, name)]
        raise TypeError(f"{type(backend).__name__} is no backend; it lacks {', '.join(lacking)}")
    return backend


def checked_image(
    x: object, state: State, hook: str, image: tuple[int, ...] | None = None
) -> Tensor:
    """What a hook made of the image, if it is the image (C, H, W) of a run."""
    shape, dtype = (len(state.origin), *(image or state.backend.shape)), state.backend.dtype
    if not isinstance(x, Tensor) or x.shape != shape or x.dtype != dtype:
        what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{hook} made x a {what}; it must be a tensor, {dtype} {shape}")
    if not all_finite(x):
        raise NonFiniteError(
            f"x became NaN or Inf in {hook} at step {state.step} though the model's predictions "
            "were finite; check the plugins, and scales that are very large"
        )
    return x


def checked_start(state: State) -> State:
    if len(state.times) < 2 or state.stopped:
        raise ValueError("no step is left after start; leave at least two times in state.times")
    schedule = state.backend.schedule
    for time in state.times:
        schedule.at(finite(time, "after start, a time in state.times"))
    if schedule.goes_back(state.times[-2], state.times[-1]):
        raise ValueError("state.times ends in a jump back to noise; it must end in a step")
    for time, following in pairwise(state.times):
        if schedule.noise_level(time) == 0 and not schedule.goes_back(time, following):
            raise ValueError(f"state.times has a step from {time:g}, where the image is clean")
    checked_image(state.x, state, "start")
    return state


def check_finished(state: State) -> None:
    if state.origin != tuple(range(len(state.seeds))):
        raise ValueError(
            f"the run ended with {len(state.x)} images of {len(state.seeds)} seeds; a plugin that "
            "follows several images a seed must select one of them in its finish"
        )
    checked_image(state.x, state, "finish", image_shape_of(state.backend))


def views(plugins: Iterable[object]) -> tuple[Transform, ...]:
    """What plugins show images through, each view once: their optional attribute ``transforms``."""
    found: list[Transform] = []
    for plugin in plugins:
        listed = getattr(plugin, "transforms", ())
        for view in listed if isinstance(listed, Sequence) else ():
            if isinstance(view, Transform) and view not in found:
                found.append(view)
        nested = views([c for c in conditions_of(plugin) if is_nested(c)])
        found += [view for view in nested if view not in found]
    return tuple(found)


def checked_solver(solver: Solver) -> Solver:
    if not isinstance(solver, Solver) or isinstance(solver, type):
        got = repr(solver) if isinstance(solver, str | type) else type(solver).__name__
        raise TypeError(
            f"solver must be a solver object with times() and step(), got {got}; write for "
            "example Heun(), or DiffusersSolver(scheduler) around a diffusers scheduler"
        )
    return solver


def checked_plugins(plugins: Iterable[object]) -> tuple[object, ...]:
    if isinstance(plugins, str | Mapping) or not isinstance(plugins, Iterable):
        raise TypeError(f"plugins must be a list of plugin objects, got {plugins!r:.80}")
    chosen = tuple(plugins)
    for plugin in chosen:
        if isinstance(plugin, str):
            made = getattr(installed().find("plugin", plugin).factory, "__name__", plugin)
            raise TypeError(f"plugins must be objects, got {plugin!r}; write {made}(...)")
        if isinstance(plugin, Mapping):
            raise TypeError(
                f"plugins must be objects, got {plugin!r:.80}; a recipe's are made by "
                "Sampler.from_recipe"
            )
        if isinstance(plugin, type):
            raise TypeError(
                f"plugins must be objects, got the class {plugin.__name__}; "
                f"write {plugin.__name__}(...)"
            )
        if isinstance(plugin, Solver):
            name = type(plugin).__name__
            raise TypeError(f"{name} is a solver; pass it as solver={name}(...)")
    return chosen


def hooked(plugins: Sequence[object]) -> pluggy.PluginManager:
    """A manager that calls the plugins' hooks in the order of the list."""
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    # pluggy runs what was registered last first.
    for place, plugin in reversed([*enumerate(plugins)]):
        name = type(plugin).__name__
        if any(plugin is other for other in plugins[place + 1 :]):
            raise ValueError(f"the same {name} object is in plugins twice; make a second one")
        if manager.is_registered(plugin):
            raise ValueError(f"two {name} in plugins are equal; declare {name} with eq=False")
        try:
            manager.register(plugin, name=f"{place}:{name}")
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} does not fit the hooks in composer.hooks ({reason}); "
                "mend the name or the arguments of its hook"
            ) from error
        if unmarked := sorted(_called_like_hooks(plugin) - _hooks_of(plugin)):
            raise TypeError(f"mark {name}.{unmarked[0]} with @composer.hookimpl, or rename it")
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
            check_encodable(sampler.backend, condition, owner)
            continue
        name = type(condition).__name__
        if "noise_estimate" not in _hooks_of(condition):
            raise ValueError(
                f"{owner}: {name} has no noise_estimate and cannot stand in place of a condition; "
                "put it in the list of plugins"
            )
        if others := sorted(_hooks_of(condition) - {"noise_estimate", "check"}):
            raise ValueError(
                f"{owner}: {name} answers {', '.join(others)} and cannot stand in place of a "
                "condition; put it in the list of plugins"
            )
        manager = hooked([condition])
        noise_estimates(manager)
        manager.hook.check(sampler=sampler)
        _check_nested(sampler, condition)
    require_one_kind(sampler, conditions_of(plugin), owner)


def answers_hooks(thing: object) -> bool:
    """Whether an object has methods marked as hook implementations."""
    return bool(_hooks_of(thing))


def _hooks_of(thing: object) -> set[str]:
    """The names of the hooks that an object answers."""
    return {name for name in HOOKS if hasattr(getattr(thing, name, None), "composer_impl")}


def _called_like_hooks(plugin: object) -> set[str]:
    return {name for name in HOOKS if callable(getattr(plugin, name, None))}


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
    check_encodable(sampler.backend, condition, "condition")


def check_encodable(backend: Backend, condition: Any, owner: str) -> None:
    """Refuse a condition that is not hashable, or that the backend cannot express."""
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
