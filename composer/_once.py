"""What is examined once a process: views, parts and operators, at one size and in one dtype."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

T = TypeVar("T")
MOST = 256
"""Answers that are kept; one more, and all are forgotten."""
_answers: dict[Hashable, Any] = {}


def once(examine: Callable[[], T], *of: object) -> T:
    """What ``examine()`` returns; called once a process for the things that it is about.

    Frozen dataclasses are the same thing if they are equal, other objects only if they are the same
    object. An error is raised again at the next call.

    Args:
        examine: a function that depends on nothing but ``of``.
        of: what is examined and all that the answer depends on, such as ("a view", view, shape).
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
    """Whether a thing is a frozen dataclass that can be hashed: its fields say all about it."""
    # Of its own class: a plain subclass may hold more than the fields that are compared.
    params = vars(type(thing)).get("__dataclass_params__")
    if params is None or not params.frozen or not params.eq:
        return False
    try:
        hash(thing)
    except TypeError:
        return False
    return True


class _Itself:
    """An object as a key, equal to itself alone and not kept alive by it."""

    def __init__(self, thing: object) -> None:
        self._hash = id(thing)
        self._thing: Callable[[], object]
        try:
            self._thing = weakref.ref(thing)
        except TypeError:  # it has slots; kept alive, its id stays its own
            self._thing = lambda: thing

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self._thing()
        return isinstance(other, _Itself) and mine is not None and mine is other._thing()
