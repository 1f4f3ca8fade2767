"""The size of a recipe, checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
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
    MAX_VALUES,
    MAX_WHOLE,
)
from composer.recipes.pictures import size_of

PAYLOADS = ("image", "tensor", "array")
"""Keys of what is text in a recipe, and something else once it is read."""


def check_bounds(recipe: Any) -> None:
    """Check that a recipe is JSON within the limits, without recursion and at the first excess.

    Raises:
        ValueError: it is larger. TypeError: it holds something else.
    """
    objects = lists = values = payload = 0
    waiting: list[tuple[Any, int]] = [(recipe, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            objects, values = objects + 1, values + len(value)
        elif isinstance(value, list | tuple):
            lists, values = lists + 1, values + len(value)
        else:
            _check_scalar(value)
            continue
        _require(depth, MAX_DEPTH, "levels")
        _require(objects, MAX_OBJECTS, "dictionaries")
        _require(lists, MAX_LISTS, "lists")
        _require(values, MAX_VALUES, "values")
        if isinstance(value, dict):
            payload += _payload(value)
            _require(payload, MAX_BYTES, "letters of pictures and tensors")
            further: Any = [v for k, v in value.items() if k not in PAYLOADS or _is_nested(v)]
        else:
            further = value
        waiting.extend((inner, depth + 1) for inner in further)


def check_pictures(recipe: Any, shape: tuple[int, ...]) -> None:
    """Check the pixels of all pictures, by their heads, against those of a model's images."""
    most = max(MAX_PIXELS, MAX_IMAGES * shape[-2] * shape[-1])
    pixels, waiting = 0, [recipe]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("image"), str):
                width, height = size_of(value["image"])
                pixels += width * height
                if pixels > most:
                    raise ValueError(
                        f"Recipe: its pictures have more than {most} pixels together. The model "
                        f"makes images of {shape[-2]}x{shape[-1]}; shrink the pictures."
                    )
            waiting.extend(v for v in value.values() if _is_nested(v))
        else:
            waiting.extend(v for v in value if _is_nested(v))


def _payload(value: Mapping[Any, Any]) -> int:
    """Letters of the pictures and tensors of a dictionary; its keys are checked too."""
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"Recipe: a key must be a string, got {shown(key)}.")
        _check_scalar(key)
    return sum(len(value[key]) for key in PAYLOADS if isinstance(value.get(key), str))


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        _require(len(value), MAX_TEXT, "letters in one text")
    elif isinstance(value, int):
        if abs(value) >= MAX_WHOLE:
            raise ValueError("Recipe: a whole number must be below 2**63.")
    elif value is not None and not isinstance(value, float):
        raise TypeError(
            f"Recipe: it must be JSON, got {shown(value)}. Pass objects as plugins={{...}} or "
            "backend=."
        )


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list | tuple)


def _require(count: int, most: int, what: str) -> None:
    if count > most:
        raise ValueError(f"Recipe: it has more than {most} {what}. Make it smaller.")
