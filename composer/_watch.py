"""``Sampler(..., debug=True)``: the plugin is named whose hook leaves a run something wrong."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pluggy
from torch import Tensor

from composer._checks import checked_image
from composer.driver import version
from composer.finiteness import Finiteness
from composer.protocols import Asking, State, image_shape_of
from composer.requests import Estimate


def watch(hooks: pluggy.PluginManager) -> None:
    """Check what each hook of each plugin leaves, as soon as it has run.

    The driver does so for ``noise_estimate``, which nests.
    """
    for name, check in _CHECKS.items():
        arguments = ("state", "estimate") if name == "step" else ("state",)
        for implementation in getattr(hooks.hook, name).get_hookimpls():
            _watch(
                implementation, arguments, check, f"{type(implementation.plugin).__name__}.{name}"
            )


def _watch(
    implementation: pluggy.HookImpl,
    arguments: tuple[str, ...],
    check: Callable[[State, Any, str], Any],
    who: str,
) -> None:
    function, taken = implementation.function, implementation.argnames

    def plain(*values: Any) -> Any:
        given = dict(zip(arguments, values, strict=True))
        tensors = _tensors(**given)
        before = [version(tensor) for tensor in tensors.values()]
        result = function(*(given[name] for name in taken))
        for (name, tensor), written in zip(tensors.items(), before, strict=True):
            if version(tensor) != written:
                raise ValueError(f"{who} wrote into {name}; replace it by a new tensor")
        return check(given["state"], result, who)

    def around(*values: Any) -> Generator[Any, Any, Any]:
        given = dict(zip(arguments, values, strict=True))
        result = yield from function(*(given[name] for name in taken))
        return check(given["state"], result, who)

    wraps = implementation.wrapper or implementation.hookwrapper
    implementation.function, implementation.argnames = (around if wraps else plain), arguments


def _tensors(state: State, estimate: Estimate | None = None) -> dict[str, Tensor]:
    """What a hook is given and must not write into."""
    found = {"state.x": state.x, **{f"state.beside[{k!r}]": v for k, v in state.beside.items()}}
    for name, given in (("estimate", estimate), ("state.estimate", state.estimate)):
        if given is not None:
            found[f"{name}.prediction"] = given.prediction
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _check_x(state: State, result: Any, who: str) -> Any:
    checked_image(state.x, state, who, Finiteness(at_once=True))
    return result


def _check_step(state: State, result: Any, who: str) -> Any:
    """A step may be left to others, taken, or need further estimates first."""
    if isinstance(result, Generator):
        return _check_end(state, result, who)
    return None if result is None else checked_image(result, state, who, Finiteness(at_once=True))


def _check_end(state: State, asking: Asking[Any], who: str) -> Asking[Any]:
    return _check_step(state, (yield from asking), who)


def _check_finish(state: State, result: Any, who: str) -> Any:
    """A latent backend decodes x here, around which others see either."""
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
