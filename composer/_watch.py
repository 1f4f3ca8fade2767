"""``Sampler(..., debug=True)``: check the run after each hook and name the plugin at fault."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pluggy
from torch import Tensor

from composer._run_checks import checked_image
from composer.finiteness import Finiteness
from composer.hooks import manager
from composer.latents import image_shape_of
from composer.lent import version
from composer.markers import hookimpl
from composer.protocols import Asking, State
from composer.requests import Estimate


def watched(hooks: pluggy.PluginManager) -> pluggy.PluginManager:
    """The hooks that act on a run, with a check after each plugin's hook.

    The driver checks ``noise_estimate``, which nests.
    """
    made = manager()
    for name, plugin in hooks.list_name_plugin():
        functions = {}
        for hook in _CHECKS:
            options = hooks.parse_hookimpl_opts(plugin, hook)
            if options is not None:
                wraps = options["wrapper"] or options["hookwrapper"]
                function = _around(plugin, hook) if wraps else _plain(plugin, hook)
                functions[hook] = hookimpl(**options)(function)
        made.register(_Hooks(functions), name)
    return made


class _Hooks:
    """An object that answers hooks by functions."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        vars(self).update(functions)


def _plain(plugin: object, hook: str) -> Callable[..., Any]:
    """A hook with a check after it."""
    function, who = _called(plugin, hook)

    def call(state: State, estimate: Estimate | None) -> Any:
        shared = _Shared(state, estimate)
        result = function(state=state, estimate=estimate)
        shared.check(who)
        if isinstance(result, Generator):  # a step with further evaluations runs later
            result = _parts(result, state, estimate, who)
        return _CHECKS[hook](state, result, who)

    def of_state(state: State) -> Any:
        return call(state, None)

    return call if hook == "step" else of_state


def _around(plugin: object, hook: str) -> Callable[..., Any]:
    """A wrapper hook with a check before its yield and one after its end."""
    function, who = _called(plugin, hook)

    def call(state: State, estimate: Estimate | None) -> Generator[Any, Any, Any]:
        asking = function(state=state, estimate=estimate)
        result = yield from _parts(asking, state, estimate, who)
        return _CHECKS[hook](state, result, who)

    def of_state(state: State) -> Generator[Any, Any, Any]:
        return (yield from call(state, None))

    return call if hook == "step" else of_state


def _parts(
    asking: Generator[Any, Any, Any], state: State, estimate: Estimate | None, who: str
) -> Generator[Any, Any, Any]:
    """A generator with a check after each of its parts, from one yield to the next."""
    part: Callable[[], Any] = partial(asking.send, None)
    while True:
        shared = _Shared(state, estimate)
        try:
            yielded = part()
        except StopIteration as stop:
            shared.check(who)
            return stop.value
        shared.check(who)
        try:
            part = partial(asking.send, (yield yielded))
        except GeneratorExit:
            asking.close()
            raise
        except BaseException as error:  # pluggy passes the error of an inner hook to its wrappers
            part = partial(asking.throw, error)


def _called(plugin: object, hook: str) -> tuple[Callable[..., Any], str]:
    """A plugin's hook, which may leave out arguments; and its name for messages."""
    function = getattr(plugin, hook)
    taken = inspect.signature(function).parameters

    def called(**arguments: Any) -> Any:
        return function(**{name: arguments[name] for name in taken})

    return called, f"{type(plugin).__name__}.{hook}"


class _Shared:
    """The tensors that a hook receives and must not write into, with the writes before it."""

    def __init__(self, state: State, estimate: Estimate | None) -> None:
        self._images = {
            "state.x": state.x,
            **{f"state.beside[{name!r}]": value for name, value in state.beside.items()},
        }
        self._estimates = {"estimate": estimate, "state.estimate": state.estimate}
        self._before = {id(tensor): version(tensor) for tensor in self._tensors().values()}

    def check(self, who: str) -> None:
        """Raise a ValueError that names ``who`` if it wrote into one of the tensors.

        The noise and x_0 of an estimate may have been computed since; they have no writes before.
        """
        for name, tensor in self._tensors().items():
            if version(tensor) != self._before.get(id(tensor), 0):
                raise ValueError(f"{who} wrote into {name}. Replace it with a new tensor.")

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        found: dict[str, Any] = dict(self._images)
        for owner, estimate in self._estimates.items():
            if estimate is not None:
                found |= {f"{owner}.{name}": value for name, value in estimate.tensors().items()}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _check_x(state: State, result: Any, who: str) -> Any:
    checked_image(state.x, state, who, Finiteness(at_once=True))
    return result


def _check_step(state: State, result: Any, who: str) -> Any:
    """Check the step that a hook returned: None, an image, or a generator that returns one."""
    if isinstance(result, Generator):
        return _check_end(state, result, who)
    return None if result is None else checked_image(result, state, who, Finiteness(at_once=True))


def _check_end(state: State, asking: Asking[Any], who: str) -> Asking[Any]:
    return _check_step(state, (yield from asking), who)


def _check_finish(state: State, result: Any, who: str) -> Any:
    """Check x after a ``finish`` hook: latents, or the pixels that a latent backend decoded."""
    decoded = isinstance(state.x, Tensor) and state.x.shape[1:] == image_shape_of(state.backend)
    shape = image_shape_of(state.backend) if decoded else None
    checked_image(state.x, state, who, Finiteness(at_once=True), shape)
    return result


_CHECKS: dict[str, Callable[[State, Any, str], Any]] = {
    "start": _check_x,
    "step": _check_step,
    "post_step": _check_x,
    "finish": _check_finish,
}
"""(state, the hook's result, the plugin's name) -> the hook's result."""
