"""Recipes: a sampling call as JSON, and back.

A recipe names registered things only, never import paths, so that reading one runs no code but
that of installed plugins. An object that is in no registry is written as ``{"unregistered": ...}``,
which :func:`arguments_of` refuses.
"""

from __future__ import annotations

import base64
import functools
import inspect
import io
import json
import numbers
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import diffusers
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from composer.images import MAX_PIXELS
from composer.protocols import Stack
from composer.registry import Registry, installed, load_from
from composer.requests import UNCONDITIONAL

# What reading something else than a recipe may raise.
_MALFORMED = (
    *(KeyError, TypeError, ValueError, AttributeError, OSError, OverflowError),
    *(RuntimeError, SyntaxError),  # what diffusers and Pillow say of settings and damaged pictures
    Image.DecompressionBombError,
)
KINDS = ("plugin", "transform", "decomposition", "score", "solver")


def describe(
    stack: Stack, max_rows: int | None, condition: Any, seeds: tuple[int, ...]
) -> dict[str, Any]:
    """The recipe of one call."""
    registry = installed()
    unregistered = {"unregistered": type(stack.backend).__qualname__}
    return {
        "composer": _version(),
        "backend": getattr(stack.backend, "loaded_as", unregistered),
        "plugins": [encode(plugin, registry) for plugin in stack.plugins],
        "solver": encode(stack.solver, registry),
        "num_inference_steps": stack.num_inference_steps,
        "max_rows": max_rows,
        "call": {"condition": encode(condition, registry), "seeds": list(seeds)},
    }


@functools.cache
def _version() -> str:
    return version("diffusion-composer")


def arguments_of(recipe: dict[str, Any], registry: Registry | None = None) -> dict[str, Any]:
    """The arguments of ``Sampler`` that a recipe describes; the backend is loaded last.

    Raises:
        ValueError: no recipe. LookupError: it names what is not registered.
    """
    needed = {"backend", "plugins", "solver", "num_inference_steps"}
    if not isinstance(recipe, Mapping) or not needed <= recipe.keys():
        raise ValueError(f"a recipe is a dict with the keys {sorted(needed)}; use result.recipe")
    names = registry or installed()
    backend = recipe["backend"]
    if not isinstance(backend, Mapping) or "name" not in backend:
        raise LookupError(f"the recipe's backend {_called(backend)} is not registered")
    options = backend.get("options", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"the recipe's backend options must be a dict, got {options!r}")
    return {
        "plugins": _read(recipe["plugins"], names),
        "solver": _read(recipe["solver"], names),
        "num_inference_steps": recipe["num_inference_steps"],
        "max_rows": recipe.get("max_rows"),
        "backend": load_from(names, backend["name"], dict(options)),
    }


def call_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``sample`` that a recipe holds: condition and seeds."""
    call = recipe.get("call") if isinstance(recipe, Mapping) else None
    if not isinstance(call, Mapping) or call.keys() != {"condition", "seeds"}:
        raise ValueError("the recipe has no call with condition and seeds; use result.recipe")
    if not isinstance(call["seeds"], list | tuple):
        raise ValueError(f"the recipe's seeds must be a list, got {call['seeds']!r}")
    return {"condition": _read(call["condition"], installed()), "seeds": list(call["seeds"])}


def _read(value: Any, registry: Registry) -> Any:
    """:func:`decode`, its errors as one sentence."""
    try:
        return decode(value, registry)
    except _MALFORMED as error:
        raise ValueError(f"the recipe is malformed: {type(error).__name__}: {error}") from error
    except SafetensorError as error:
        raise ValueError(f"the recipe holds a damaged tensor: {error}") from error


def encode(value: Any, registry: Registry) -> Any:
    """A value as JSON: numbers, images, tensors, and registered objects by their names."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Real):  # numpy's numbers too
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if value is UNCONDITIONAL:
        return {"unconditional": True}
    if isinstance(value, Tensor):
        return {"tensor": _text(save({"": value.detach().cpu().contiguous()}))}
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return {"image": _text(buffer.getvalue())}
    if isinstance(value, SchedulerMixin):
        config = json.loads(value.to_json_string())  # type: ignore[attr-defined]
        return {"scheduler": type(value).__name__, "config": config}
    if isinstance(value, Mapping):
        return {"pairs": [[encode(k, registry), encode(v, registry)] for k, v in value.items()]}
    if isinstance(value, list | tuple | range):
        return [encode(v, registry) for v in value]
    return _encode_object(value, registry)


def _encode_object(value: object, registry: Registry) -> dict[str, Any]:
    for kind in KINDS:
        name = registry.name_of(kind, type(value))
        if name is not None:
            fields = _fields(registry.find(kind, name).factory)
            if not all(hasattr(value, field) for field in fields):
                break  # what it was made with cannot be read off it
            options = {field: encode(getattr(value, field), registry) for field in fields}
            return {kind: name, "options": options}
    return {"unregistered": type(value).__qualname__}


@functools.cache  # a recipe is written at every call; a constructor does not change
def _fields(made: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(made).parameters)


def decode(value: Any, registry: Registry) -> Any:
    """The value that :func:`encode` wrote, lists as tuples.

    Raises:
        LookupError: it names what is not registered.
    """
    if isinstance(value, list):
        return tuple(decode(v, registry) for v in value)
    if not isinstance(value, Mapping):
        return value
    for kind in KINDS:
        if kind in value:
            factory = registry.find(kind, value[kind]).factory
            options = {k: decode(v, registry) for k, v in value.get("options", {}).items()}
            inspect.signature(factory).bind(**options)
            return factory(**options)
    for key, read in _DECODERS.items():
        if key in value:
            return read(value)
    if "pairs" in value:
        return {decode(k, registry): decode(v, registry) for k, v in value["pairs"]}
    raise LookupError(f"the recipe needs {_called(value)}, which is not registered")


def _scheduler(value: Mapping[str, Any]) -> SchedulerMixin:
    known = getattr(diffusers, str(value["scheduler"]), None)
    if not (inspect.isclass(known) and issubclass(known, SchedulerMixin)):
        raise LookupError(f"the recipe needs {value['scheduler']!r}, no scheduler of diffusers")
    scheduler: SchedulerMixin = known.from_config(dict(value["config"]))  # type: ignore[attr-defined]
    return scheduler


def _image(value: Mapping[str, Any]) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(value["image"])), formats=["PNG"])
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"the recipe's image of {image.size} exceeds {MAX_PIXELS} pixels")
    image.load()
    return image


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "unconditional": lambda value: UNCONDITIONAL,
    "tensor": lambda value: load(base64.b64decode(value["tensor"]))[""],
    "image": _image,
    "scheduler": _scheduler,
}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _called(value: object) -> str:
    return (
        repr(value["unregistered"])
        if isinstance(value, Mapping) and "unregistered" in value
        else repr(value)
    )
