"""Checks of arguments, for plugins and solvers."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Final

from torch import Tensor

from composer.errors import shown

_LONG = 10
"""More digits than any label has."""


class FromRecipe(str):
    """A string from a recipe: a word or a prompt, never the name of a file.

    The functions that open pictures raise a TypeError for it.
    """

    __slots__ = ()


_MAX_NUMBER = 1e18
"""The largest number that an argument may be; torch has no larger integers."""
_REAL: Final = float, int, numbers.Real  # the last is slow


def finite(value: Any, name: str) -> float:
    """Return a finite real number as a float, at most 1e18 in size; booleans raise a TypeError."""
    if isinstance(value, bool) or not isinstance(value, _REAL):
        raise TypeError(f"{name} must be a number, got {shown(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= _MAX_NUMBER:
        raise ValueError(
            f"{name} must be finite and at most {_MAX_NUMBER:g} in size, got {shown(value)}."
        )
    return number


def number_of(value: Any, name: str) -> Any:
    """The number in a tensor or array of one number; any other value unchanged."""
    if not hasattr(value, "item") or isinstance(value, numbers.Number):
        return value
    if math.prod(value.shape) != 1 or value.ndim:
        raise ValueError(f"{name} must be one number, got the shape {tuple(value.shape)}.")
    return value.item()


def positive(value: Any, name: str) -> float:
    """A finite number above zero."""
    number = finite(value, name)
    if number <= 0:
        raise ValueError(f"{name} must be a positive number, got {shown(value)}.")
    return number


def switch(value: Any, name: str) -> bool:
    """Return True or False; any other value raises a TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}.")
    return value


def integer(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Return an integer from ``least`` to ``most``, also numpy's; booleans raise a TypeError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {shown(value)}.")
    if value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {shown(value)}.")
    if most is not None and int(value) > most:
        raise ValueError(f"{name} must be an integer of at most {most}, got {shown(value)}.")
    return int(value)


def floating(value: Any, name: str) -> Tensor:
    """Return a floating-point tensor; any other value raises a TypeError."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        what = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else shown(value)
        raise TypeError(f"{name} must be a floating-point tensor, got {what}.")
    return value


def label_of(condition: Any) -> int:
    """A class label as an integer, from an integer of Python, numpy or torch, or from its digits.

    -1 for any other value, booleans included.
    """
    if isinstance(condition, str):
        return int(condition) if condition.isdecimal() and len(condition) < _LONG else -1
    try:
        return -1 if isinstance(condition, bool) else operator.index(condition)
    except TypeError:
        return -1


def sequence(values: Any, name: str) -> list[Any]:
    """Return a list or tuple, or another iterable except text and mappings, as a list."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise TypeError(f"{name} must be a list or tuple, got {shown(values)}.")
    return list(values)


def finite_list(values: Any, name: str) -> list[float]:
    """A list or tuple of finite numbers."""
    return [finite(value, name) for value in sequence(values, name)]


def finite_each(values: Any, name: str) -> Any:
    """Return a finite number, or a list or tensor (S,) of one per seed, unchanged."""
    if isinstance(values, Tensor) and values.ndim == 1:
        chosen = values.tolist()
    elif isinstance(values, list | tuple):
        chosen = list(values)
    else:
        return finite(values, name)
    if not chosen:
        raise ValueError(
            f"{name} must be a number, or a list of one per seed, got {shown(values)}."
        )
    for value in chosen:
        finite(value, name)
    return values


def interval(values: Any, name: str) -> tuple[float, float]:
    """(low, high) with 0 <= low <= high <= 1."""
    ends = finite_list(values, name)
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
        raise ValueError(
            f"{name} must be (low, high) with 0 <= low <= high <= 1, got {shown(values)}."
        )
    return ends[0], ends[1]


_LEVEL_ROUNDING = 1e-9
"""Rounding of a noise level; the levels of a schedule of 1000 times differ by more than 1e-5."""


def within(noise_level: float, interval: Sequence[float]) -> bool:
    """Whether a noise level lies in (low, high), both ends included.

    The comparison allows for rounding: a step's level is computed, 1 - 0.7 = 0.30000000000000004,
    and a user writes 0.3.
    """
    low, high = interval
    return low - _LEVEL_ROUNDING <= noise_level <= high + _LEVEL_ROUNDING


def intervals(values: Any, name: str, count: int) -> list[tuple[float, float]]:
    """Return ``count`` intervals; None means [0, 1] for each."""
    if values is None:
        return [(0.0, 1.0)] * count
    checked = [interval(ends, f"{name}: each") for ends in sequence(values, name)]
    if len(checked) != count:
        raise ValueError(f"{name} must be {count}, one for each, got {len(checked)}.")
    return checked


def choice(value: Any, name: str, known: Iterable[str]) -> str:
    """Return a word if it is known; raise a ValueError otherwise."""
    words = sorted(known)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {words}, got {shown(value)}.")
    return value


def lacking(thing: object, protocol: type) -> list[str]:
    """The members of a protocol that an object lacks, ``__getattr__`` included.

    Use it in place of isinstance, which ignores ``__getattr__`` from Python 3.12 on. A class lacks
    all members, because only its objects have them.
    """
    members = [name for kind in protocol.__mro__ for name in vars(kind) if name[0] != "_"]
    return [name for name in members if isinstance(thing, type) or not hasattr(thing, name)]


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Return seeds as a tuple of integers; raise an error if one is out of range."""
    scalar = isinstance(seeds, Tensor) and seeds.ndim == 0
    if scalar or isinstance(seeds, str | bytes) or not isinstance(seeds, Iterable):
        raise TypeError(
            f"seeds must be a sequence of integers, got {shown(seeds)}. Give [0] or range(8)."
        )
    chosen: list[int] = []
    for seed in seeds:
        try:
            chosen.append(operator.index(seed))
        except TypeError:
            raise TypeError(f"seeds must be integers, got {shown(seed)}.") from None
        # torch's generator reads 32 bits; larger seeds would repeat images silently.
        if isinstance(seed, bool) or not 0 <= chosen[-1] < 2**32:
            raise ValueError(f"seeds must be integers from 0 to 2**32 - 1, got {shown(seed)}.")
    if not chosen:
        raise ValueError("seeds must not be empty. Give one per image, for example range(8).")
    return tuple(chosen)
