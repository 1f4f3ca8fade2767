"""Short forms of objects: tensors by their shape, networks by their class."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

_MOST = 6
"""Items of a list that are shown."""
_LEVELS = 6
"""Levels of nested objects and lists that are shown: a plugin that holds another one twice, and so
on, has twice as many words at each level."""
_LONG = 80
"""Most letters of an object's own repr."""


@functools.singledispatch
def short(value: Any, levels: int = _LEVELS) -> str:
    """A value on one line: a tensor by its shape, a network by its class, a dataclass object by its
    fields, a list by its first items. It has no addresses, which differ between processes.

    What lies below ``levels`` levels is "..."."""
    kind = type(value)
    written = dataclasses.is_dataclass(kind) and kind.__dataclass_params__.repr  # type: ignore[attr-defined]
    if written or kind.__repr__ is short_repr:  # type: ignore[comparison-overlap]
        return short_repr(value, levels)
    words = re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(value).split()))
    return words if len(words) <= _LONG else f"{words[: _LONG - 3]}..."


def short_repr(self: Any, levels: int = _LEVELS) -> str:
    """The class and the fields that differ from their defaults, each in the form of :func:`short`.

    For ``__repr__ = short_repr`` in a class that is declared with ``@dataclass(repr=False)``.
    """
    if levels == 0:
        return f"{type(self).__name__}(...)"
    shown = [f for f in dataclasses.fields(self) if f.repr and not _by_default(self, f)]
    listed = ", ".join(f"{f.name}={short(getattr(self, f.name), levels - 1)}" for f in shown)
    return f"{type(self).__name__}({listed})"


@short.register
def _(value: Tensor, levels: int = _LEVELS) -> str:
    return f"{type(value).__name__}{list(value.shape)}"


@short.register
def _(value: np.ndarray, levels: int = _LEVELS) -> str:
    return f"array{list(value.shape)}"


@short.register
def _(value: nn.Module, levels: int = _LEVELS) -> str:
    return type(value).__name__


@short.register
def _(value: float, levels: int = _LEVELS) -> str:
    return repr(value) if len(repr(value)) <= _MOST + 1 else f"{value:.4g}"


@short.register
def _(value: list, levels: int = _LEVELS) -> str:  # type: ignore[type-arg]
    return f"[{_listed((short(item, levels - 1) for item in value), len(value), levels)}]"


@short.register
def _(value: tuple, levels: int = _LEVELS) -> str:  # type: ignore[type-arg]
    words = _listed((short(item, levels - 1) for item in value), len(value), levels)
    return f"({words},)" if len(value) == 1 else f"({words})"


@short.register
def _(value: Mapping, levels: int = _LEVELS) -> str:  # type: ignore[type-arg]
    inner = levels - 1
    pairs = (f"{short(key, inner)}: {short(item, inner)}" for key, item in value.items())
    return f"{{{_listed(pairs, len(value), levels)}}}"


def _listed(words: Iterable[str], count: int, levels: int) -> str:
    if levels == 0 and count:
        return "..."
    shown = [word for word, _ in zip(words, range(_MOST), strict=False)]
    return ", ".join([*shown, "..."] if count > _MOST else shown)


def _by_default(owner: object, field: dataclasses.Field[Any]) -> bool:
    value, default = getattr(owner, field.name), field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    # A comparison of tensors or arrays gives a tensor or array, which is never True itself.
    return value is default or (type(value) is type(default) and (value == default) is True)
