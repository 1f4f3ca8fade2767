"""Write a sampling call as JSON: copy the arguments at the call, write the text on demand."""

from __future__ import annotations

import base64
import functools
import inspect
import io
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from composer.protocols import Stack
from composer.recipes.schedulers import settings_of
from composer.registry import Registry, installed
from composer.requests import UNCONDITIONAL, Each
from composer.row_bounds import MaxRows
from composer.weights import Weights

KINDS = ("plugin", "transform", "decomposition", "score", "solver")
PLAIN = frozenset({type(None), bool, int, float, str})


@dataclass(frozen=True, eq=False)
class Draft:
    """A recipe that is not text yet: names, numbers, and copies of pictures and tensors.

    To copy a picture is a hundred times faster than to encode it, and most recipes are never read.
    Later changes by the caller do not affect the copies.
    """

    content: dict[str, Any]

    def written(self) -> dict[str, Any]:
        """The recipe, of plain JSON."""
        recipe: dict[str, Any] = _written(self.content)
        return recipe


@dataclass(frozen=True, eq=False)
class Held:
    """A copy of a picture, tensor or array, with its key in a recipe."""

    key: str
    copy: Any


def draft(
    stack: Stack,
    max_rows: MaxRows = "auto",
    condition: Any = None,
    seeds: Sequence[int] = (),
    beginning: Mapping[str, Any] | None = None,
) -> Draft:
    """Copy what the recipe of one call needs, so that the arguments may change later.

    Args:
        stack, max_rows: the sampler's.
        condition, seeds: the call's.
        beginning: the call's x and t, if given.
    """
    registry = installed()
    begun = {name: noted(value, registry) for name, value in (beginning or {}).items()}
    return Draft(
        {
            "composer": current_version(),
            "backend": _loaded_as(stack.backend, registry),
            "weights": Weights(stack.backend),
            "plugins": [noted(plugin, registry) for plugin in stack.plugins],
            "solver": noted(stack.solver, registry),
            "num_inference_steps": stack.num_inference_steps,
            "max_rows": max_rows,
            "call": {"condition": noted(condition, registry), "seeds": list(seeds), **begun},
        }
    )


def describe(
    stack: Stack, max_rows: MaxRows = "auto", condition: Any = None, seeds: Sequence[int] = ()
) -> dict[str, Any]:
    """The recipe of one call, written at once."""
    return draft(stack, max_rows, condition, seeds).written()


def encode(value: Any, registry: Registry) -> Any:
    """A value as JSON: numbers, pictures, tensors, and registered objects by their names."""
    return _written(noted(value, registry))


@functools.cache
def current_version() -> str:
    """The version of the library, as recipes record it."""
    return version("diffusion-composer")


def noted(value: Any, registry: Registry) -> Any:
    """A value as JSON, with pictures and tensors as copies."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Real):  # numpy's numbers too
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if value is UNCONDITIONAL:
        return {"unconditional": True}
    if isinstance(value, Each):
        return {"each": noted(value.conditions, registry)}
    if isinstance(value, list | tuple | range):
        plain = set(map(type, value)) <= PLAIN  # a long list, such as a permutation
        return list(value) if plain else [noted(v, registry) for v in value]
    if isinstance(value, Mapping):
        return {"pairs": [[noted(k, registry), noted(v, registry)] for k, v in value.items()]}
    held = _held(value)
    return _noted_object(value, registry) if held is None else held


def _held(value: object) -> Held | None:
    """A copy of a picture, tensor or array; None for other values."""
    if isinstance(value, Tensor):
        return Held("tensor", value.detach().clone(memory_format=torch.contiguous_format))
    if _is(value, "PIL.Image", "Image"):
        return Held("image", _copied(value))
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return Held("array", torch.from_numpy(value.astype(value.dtype.newbyteorder("="))))
    return None


def _copied(picture: Any) -> Any:
    """A copy of a PIL image with its EXIF orientation."""
    copied = picture.copy()
    if exif := picture.getexif():
        copied.info["exif"] = exif.tobytes()
    return copied


def _is(value: object, module: str, name: str) -> bool:
    """Whether a value is of a class whose module may not have been imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _noted_object(value: object, registry: Registry) -> dict[str, Any]:
    settings = settings_of(value)
    if settings is not None:
        return {"scheduler": type(value).__name__, "config": settings}
    for kind in KINDS:
        name = registry.name_of(kind, type(value))
        if name is not None:
            fields = _fields(registry.find(kind, name).factory)
            if not all(hasattr(value, field) for field in fields):
                break  # the object does not keep this argument
            options = {field: noted(getattr(value, field), registry) for field in fields}
            return {kind: name, "options": options}
    return {"unregistered": type(value).__qualname__}


@functools.cache  # a constructor does not change
def _fields(made: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(made).parameters)


def _loaded_as(backend: object, registry: Registry) -> dict[str, Any]:
    """How ``load_backend`` loaded a backend, if it did."""
    loaded = getattr(backend, "loaded_as", None)
    if loaded is None:
        return {"unregistered": type(backend).__qualname__}
    options = {name: _option(value, registry) for name, value in loaded["options"].items()}
    return {"name": loaded["name"], "options": options}


def _option(value: Any, registry: Registry) -> Any:
    """An option of ``load_backend``: files, devices and dtypes by their names."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.device | Path):
        return str(value)
    return noted(value, registry)


def _written(noted: Any) -> Any:
    if isinstance(noted, dict):
        return {key: _written(value) for key, value in noted.items()}
    if isinstance(noted, list):
        plain = set(map(type, noted)) <= PLAIN
        return list(noted) if plain else [_written(value) for value in noted]
    if isinstance(noted, Weights):
        return noted.hash()
    if isinstance(noted, Held):
        write = _as_png if noted.key == "image" else _as_safetensors
        return {noted.key: base64.b64encode(write(noted.copy)).decode("ascii")}
    return noted


def _as_png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=picture.getexif())  # keeps the orientation
    return buffer.getvalue()


def _as_safetensors(tensor: Tensor) -> bytes:
    from safetensors.torch import save  # noqa: PLC0415  # few recipes hold tensors

    return bytes(save({"": tensor.cpu()}))
