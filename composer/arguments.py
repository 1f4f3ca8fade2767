"""Checks of arguments, for plugins and solvers: one sentence that names what is wrong."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor


def finite(value: Any, name: str) -> float:
    """A finite real number as a float; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def positive(value: Any, name: str) -> float:
    """A finite number above zero."""
    number = finite(value, name)
    if number <= 0:
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return number


def switch(value: Any, name: str) -> bool:
    """True or False, and nothing that is merely like them."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def integer(value: Any, name: str, least: int) -> int:
    """A whole number of at least ``least``; numpy's integers are welcome, booleans are not."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def sequence(values: Any, name: str) -> list[Any]:
    """A list or tuple, or anything like them but text and mappings, as a list."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} must be a list or tuple, got {values!r}")
    return list(values)


def finite_list(values: Any, name: str) -> list[float]:
    """A list or tuple of finite numbers."""
    return [finite(value, name) for value in sequence(values, name)]


def interval(values: Any, name: str) -> tuple[float, float]:
    """(low, high) with 0 <= low <= high <= 1."""
    ends = finite_list(values, name)
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
        raise ValueError(f"{name} must be (low, high) with 0 <= low <= high <= 1, got {values!r}")
    return ends[0], ends[1]


def intervals(values: Any, name: str, count: int) -> list[tuple[float, float]]:
    """``count`` intervals; where None is given, all of [0, 1]."""
    if values is None:
        return [(0.0, 1.0)] * count
    checked = [interval(ends, f"{name}: each") for ends in sequence(values, name)]
    if len(checked) != count:
        raise ValueError(f"{name} must be {count}, one for each, got {len(checked)}")
    return checked


def choice(value: Any, name: str, known: Iterable[str]) -> str:
    """One of the known words."""
    words = sorted(known)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {words}, got {value!r}")
    return value


MOST_SEEDS = 100_000
"""Of one call: an iterator without an end would fill the memory, and more fit no device."""


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds as a tuple of integers, or a sentence that says what is wrong with them."""
    scalar = isinstance(seeds, Tensor) and seeds.ndim == 0
    if scalar or isinstance(seeds, str | bytes) or not isinstance(seeds, Iterable):
        raise TypeError(
            f"seeds must be a sequence of integers such as [0] or range(8), got {seeds!r}"
        )
    chosen: list[int] = []
    for seed in seeds:
        if len(chosen) == MOST_SEEDS:
            raise ValueError(
                f"seeds has more than {MOST_SEEDS}, or no end; sample them in parts, such as "
                "range(1000)"
            )
        try:
            chosen.append(operator.index(seed))
        except TypeError:
            raise TypeError(f"seeds must be integers, got {seed!r}") from None
        # torch's generator reads 32 bits; larger seeds would repeat images silently.
        if isinstance(seed, bool) or not 0 <= chosen[-1] < 2**32:
            raise ValueError(f"seeds must be integers from 0 to 2**32 - 1, got {seed!r}")
    if not chosen:
        raise ValueError("seeds is empty; give one seed for each image, for example range(8)")
    return tuple(chosen)
