"""A cache of examinations of views, parts and operators, one per size, dtype and process."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

T = TypeVar("T")
MOST = 256
"""Results kept; the cache is cleared when it is full."""
_answers: dict[Hashable, Any] = {}


def once(examine: Callable[[], T], *of: object) -> T:
    """Return ``examine()``, calling it once per process for the same ``of``.

    Frozen dataclasses are the same if they are equal; other objects are the same only as one
    object. An error is not cached.

    Args:
        examine: a function that depends on ``of`` alone.
        of: all that the result depends on, such as ("a view", view, shape).
    """
    key = _key(of)
    if key in _answers:
        return _answers[key]  # type: ignore[no-any-return]
    found = examine()
    if len(_answers) >= MOST:
        _answers.clear()
    _answers[key] = found
    return found


def _key(thing: object) -> Hashable:
    """A key that is equal for the same thing."""
    if isinstance(thing, tuple | list):
        return tuple(map(_key, thing))
    if isinstance(thing, str | int | float | torch.dtype | torch.device | None):
        return thing
    return thing if _is_value(thing) else _Itself(thing)


def _is_value(thing: object) -> bool:
    """Whether a thing is a hashable frozen dataclass, which its fields define completely."""
    # Read from the class itself: a plain subclass may hold more than the compared fields.
    params = vars(type(thing)).get("__dataclass_params__")
    if params is None or not params.frozen or not params.eq:
        return False
    try:
        hash(thing)
    except TypeError:
        return False
    return True


class _Itself:
    """A key that equals only the same object and does not keep it alive."""

    def __init__(self, thing: object) -> None:
        self._hash = id(thing)
        self._thing: Callable[[], object]
        try:
            self._thing = weakref.ref(thing)
        except TypeError:  # it has slots; keep it alive so that no other object takes its id
            self._thing = lambda: thing

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self._thing()
        return isinstance(other, _Itself) and mine is not None and mine is other._thing()
