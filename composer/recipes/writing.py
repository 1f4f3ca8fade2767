"""Write a sampling call as JSON: copy the arguments at the call, write the text on demand."""

from __future__ import annotations

import base64
import functools
import inspect
import io
import numbers
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import composer
from composer.limits import MAX_DEPTH
from composer.protocols import Stack
from composer.recipes.bounds import Size
from composer.recipes.schedulers import settings_of
from composer.registry import Registry, installed
from composer.requests import UNCONDITIONAL, Each
from composer.row_bounds import MaxRows
from composer.weights import Weights

KINDS = ("plugin", "transform", "decomposition", "score", "loss", "solver")
PLAIN = frozenset({type(None), bool, int, float, str})


@dataclass(frozen=True, eq=False)
class Draft:
    """A recipe that is not text yet: names, numbers, and copies of pictures and tensors.

    To copy a picture is a hundred times faster than to encode it, and most recipes are never read.
    Later changes by the caller do not affect the copies.

    Args:
        content: None if it is nested deeper than Python can follow.
    """

    content: dict[str, Any] | None

    def written(self) -> dict[str, Any]:
        """The recipe, of plain JSON.

        Raises:
            ValueError: it exceeds a limit of :mod:`composer.limits`.
        """
        if self.content is None:
            raise ValueError(f"Recipe: it has more than {MAX_DEPTH} levels. Make it smaller.")
        recipe: dict[str, Any] = _Writer().written(self.content)
        return recipe


@dataclass(frozen=True, eq=False)
class Copied:
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
    drafter = _Drafter(installed())
    try:
        plugins, given = [drafter.of(plugin) for plugin in stack.plugins], drafter.of(condition)
    except RecursionError:
        return Draft(None)
    begun = {name: drafter.of(value) for name, value in (beginning or {}).items()}
    return Draft(
        {
            "composer": current_version(),
            "backend": drafter.backend(stack.backend),
            "weights": Weights(stack.backend),
            "plugins": plugins,
            "solver": drafter.of(stack.solver),
            "num_inference_steps": stack.num_inference_steps,
            "max_rows": max_rows,
            "call": {"condition": given, "seeds": list(seeds), **begun},
        }
    )


def describe(
    stack: Stack, max_rows: MaxRows = "auto", condition: Any = None, seeds: Sequence[int] = ()
) -> dict[str, Any]:
    """The recipe of one call, written at once."""
    return draft(stack, max_rows, condition, seeds).written()


def encode(value: Any, registry: Registry) -> Any:
    """A value as JSON: numbers, pictures, tensors, and registered objects by their names."""
    return _Writer().written(_Drafter(registry).of(value))


def current_version() -> str:
    """The version of the library, as recipes record it."""
    return composer.__version__


@dataclass(frozen=True)
class _Drafter:
    """Values as JSON, with pictures and tensors as copies.

    A value in several places is drafted once: k plugins, each of which holds the next one twice,
    have 2^k places.
    """

    registry: Registry
    known: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def of(self, value: Any) -> Any:
        """The draft of one value and of the values in it."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, numbers.Real):  # numpy's numbers too
            return int(value) if isinstance(value, numbers.Integral) else float(value)
        if value is UNCONDITIONAL:
            return {"unconditional": True}
        if id(value) not in self.known:  # an id belongs to the value as long as it is kept
            self.known[id(value)] = value, self._new(value)
        return self.known[id(value)][1]

    def _new(self, value: Any) -> Any:
        if isinstance(value, Each):
            return {"each": self.of(value.conditions)}
        if isinstance(value, list | tuple | range):
            plain = set(map(type, value)) <= PLAIN  # a long list, such as a permutation
            return list(value) if plain else [self.of(v) for v in value]
        if isinstance(value, Mapping):
            return {"pairs": [[self.of(k), self.of(v)] for k, v in value.items()]}
        copied = _copied(value)
        return self._object(value) if copied is None else copied

    def _object(self, value: object) -> dict[str, Any]:
        settings = settings_of(value)
        if settings is not None:
            return {"scheduler": type(value).__name__, "config": settings}
        for kind in KINDS:
            name = self.registry.name_of(kind, type(value))
            if name is not None:
                fields = _fields(self.registry.find(kind, name).factory)
                if not all(hasattr(value, field) for field in fields):
                    break  # the object does not keep this argument
                options = {field: self.of(getattr(value, field)) for field in fields}
                return {kind: name, "options": options}
        return {"unregistered": type(value).__qualname__}

    def backend(self, backend: object) -> dict[str, Any]:
        """How ``load_backend`` loaded a backend, if it did."""
        loaded = getattr(backend, "loaded_as", None)
        if loaded is None:
            return {"unregistered": type(backend).__qualname__}
        options = {name: self._option(value) for name, value in loaded["options"].items()}
        return {"name": loaded["name"], "options": options}

    def _option(self, value: Any) -> Any:
        """An option of ``load_backend``: files, devices and dtypes by their names."""
        if isinstance(value, torch.dtype):
            return str(value).removeprefix("torch.")
        if isinstance(value, torch.device):
            return str(value)
        return _without_home(str(value)) if isinstance(value, str | Path) else self.of(value)


def _without_home(text: str) -> str:
    """A path in the home folder as "~/...", so that a recipe does not tell whose it is."""
    home = str(Path("~").expanduser())
    return f"~{text[len(home) :]}" if text.startswith(f"{home}{os.sep}") else text


def _copied(value: object) -> Copied | None:
    """A copy of a picture, tensor or array; None for other values."""
    if isinstance(value, Tensor):
        return Copied("tensor", value.detach().clone(memory_format=torch.contiguous_format))
    if _is(value, "PIL.Image", "Image"):
        return Copied("image", _copied_picture(value))
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return Copied("array", torch.from_numpy(value.astype(value.dtype.newbyteorder("="))))
    return None


def _copied_picture(picture: Any) -> Any:
    """A copy of a PIL image with its EXIF orientation."""
    copied = picture.copy()
    if exif := picture.getexif():
        copied.info["exif"] = exif.tobytes()
    return copied


def _is(value: object, module: str, name: str) -> bool:
    """Whether a value is of a class whose module may not have been imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


@functools.cache  # a constructor does not change
def _fields(made: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(made).parameters)


@dataclass(frozen=True)
class _Writer:
    """Write a draft as plain JSON, and encode a picture in several places once.

    Each place gets a dictionary of its own, so that a change of one changes no other.
    """

    size: Size = field(default_factory=Size)
    known: dict[int, dict[str, str]] = field(default_factory=dict)

    def written(self, value: Any, depth: int = 1) -> Any:
        """One value of a draft and the values in it.

        Raises:
            ValueError: the recipe exceeds a limit, so that it could not be read.
        """
        if isinstance(value, dict):
            self.size.enter(value, depth)
            return {key: self.written(part, depth + 1) for key, part in value.items()}
        if isinstance(value, list):
            self.size.enter(value, depth)
            plain = set(map(type, value)) <= PLAIN
            return list(value) if plain else [self.written(part, depth + 1) for part in value]
        if isinstance(value, Weights):
            return value.hash()
        return self._encoded(value, depth) if isinstance(value, Copied) else value

    def _encoded(self, copied: Copied, depth: int) -> dict[str, str]:
        if id(copied) not in self.known:
            write = _as_png if copied.key == "image" else _as_safetensors
            text = base64.b64encode(write(copied.copy)).decode("ascii")
            self.known[id(copied)] = {copied.key: text}
        written = dict(self.known[id(copied)])
        self.size.enter(written, depth)
        return written


def _as_png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=picture.getexif())  # keeps the orientation
    return buffer.getvalue()


def _as_safetensors(tensor: Tensor) -> bytes:
    from safetensors.torch import save  # noqa: PLC0415  # few recipes hold tensors

    return bytes(save({"": tensor.cpu()}))
