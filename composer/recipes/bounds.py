"""Check the size of a recipe before reading it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from composer.errors import shown
from composer.limits import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_IMAGES,
    MAX_LISTS,
    MAX_OBJECTS,
    MAX_PIXELS,
    MAX_TEXT,
    MAX_TEXTS,
    MAX_VALUES,
    MAX_WHOLE,
)
from composer.recipes.pictures import pixels_of

PAYLOADS = ("image", "tensor", "array")
"""Keys whose texts are long: pictures and tensors."""
_NUMBERS = frozenset({int, float, bool, type(None)})


@dataclass
class Size:
    """Counts of a recipe's contents.

    Attributes:
        dictionaries, lists, values, texts: their numbers.
        letters: the letters of pictures and tensors.
        pixels: the pixels of pictures, read from their headers.
    """

    dictionaries: int = 0
    lists: int = 0
    values: int = 0
    texts: int = 0
    letters: int = 0
    pixels: int = 0
    waiting: list[tuple[Any, int]] = field(default_factory=list)

    def count(self, value: Any, depth: int) -> None:
        """Count one value, and queue the values in it."""
        if isinstance(value, dict):
            self._count_dictionary(value, depth)
        elif isinstance(value, list | tuple):
            self.enter(value, depth)
            self._wait(value, depth)
        else:
            _check_scalar(value)

    def enter(self, value: dict[str, Any] | Sequence[Any], depth: int) -> None:
        """Count a dictionary or list and its length, but nothing inside its values.

        Raises:
            ValueError: there are more than a limit allows.
        """
        if isinstance(value, dict):
            self.dictionaries += 1
            self.texts += len(value) + _texts(value.values())
        else:
            self.lists += 1
            self.texts += _texts(value)
        self.values += len(value)
        _limit(self.dictionaries, MAX_OBJECTS, "dictionaries")
        _limit(self.lists, MAX_LISTS, "lists")
        _limit(self.values, MAX_VALUES, "values")
        _limit(self.texts, MAX_TEXTS, "texts")
        _limit(depth, MAX_DEPTH, "levels")

    def _count_dictionary(self, value: dict[Any, Any], depth: int) -> None:
        self.enter(value, depth)
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"Recipe: a key must be a string, got {shown(key)}.")
            _check_scalar(key)
        texts = [value[key] for key in PAYLOADS if isinstance(value.get(key), str)]
        self.letters += sum(map(len, texts))
        _limit(self.letters, MAX_BYTES, "letters of pictures and tensors")
        if isinstance(value.get("image"), str):
            self.pixels += pixels_of(value["image"])
        self._wait([v for v in value.values() if not any(v is text for text in texts)], depth)

    def _wait(self, values: Sequence[Any], depth: int) -> None:
        # Numbers do not wait: a list may be long, such as a permutation.
        whole = [value for value in values if type(value) is int]
        _check_scalar(max(whole, key=abs, default=0))
        if not set(map(type, values)) <= _NUMBERS:
            rest = (value for value in values if type(value) not in _NUMBERS)
            self.waiting.extend((value, depth + 1) for value in rest)


def size_of(recipe: Any) -> Size:
    """Count a recipe without recursion, and stop at the first limit exceeded.

    Raises:
        ValueError: the recipe exceeds a limit.
        TypeError: it holds a value that is not JSON.
    """
    size = Size(waiting=[(recipe, 1)])
    while size.waiting:
        size.count(*size.waiting.pop())
    return size


def check_pixels(size: Size, shape: tuple[int, ...]) -> None:
    """Raise a ValueError if a recipe's pictures have too many pixels for a model's (C, H, W)."""
    if size.pixels > max(MAX_PIXELS, MAX_IMAGES * shape[-2] * shape[-1]):
        raise ValueError(
            f"Recipe: its pictures have {size.pixels} pixels in all, too many for a model of "
            f"{shape[-2]}x{shape[-1]}. Make them smaller."
        )


def _texts(values: Iterable[Any]) -> int:
    """The number of texts among values."""
    return sum(issubclass(kind, str) * count for kind, count in Counter(map(type, values)).items())


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        _limit(len(value), MAX_TEXT, "letters in one text")
    elif isinstance(value, int):
        if abs(value) >= MAX_WHOLE:
            raise ValueError("Recipe: integers must be below 2**63.")
    elif value is not None and not isinstance(value, float):
        raise TypeError(
            f"Recipe: it must be JSON, got {shown(value)}. Pass objects as plugins={{...}} or "
            "backend=."
        )


def _limit(count: int, most: int, what: str) -> None:
    if count > most:
        raise ValueError(f"Recipe: it has more than {most} {what}. Make it smaller.")
