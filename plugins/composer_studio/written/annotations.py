"""How an annotation of a constructor is written in a recipe: a type that pydantic checks."""

from __future__ import annotations

import collections.abc
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from PIL import Image
from pydantic import PlainValidator, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError
from torch import Tensor

from composer import Transform
from composer.authoring import Decomposition, Loss
from composer.limits import MAX_TEXT
from composer.protocols import Solver
from composer_plugins.editing.operators import Operator

Check = Callable[[Any], Any]
REFERENCE = "composer-kind"
"""In a JSON Schema that is not finished: stands for all things of a kind."""
_PLAIN = (int, float, str, bool, type(None))
_KINDS: Mapping[Any, str] = {
    Transform: "transform",
    Solver: "solver",
    Callable[[Tensor], Tensor]: "score",
    Loss: "loss",
    Decomposition: "decomposition",
    Operator: "decomposition",
}
"""What a constructor asks for, by the kind that it is registered as."""


class Picture(str):
    """The path of a picture, as written."""

    __slots__ = ()


class Pairs(tuple[tuple[Any, Any], ...]):
    """A mapping in the order in which it was written."""

    __slots__ = ()


class AtPlacesError(ValueError):
    """Errors at places inside a value: (path from it, error)."""

    def __init__(self, found: Sequence[tuple[tuple[str | int, ...], Exception]]) -> None:
        super().__init__(str(found[0][1]))
        self.found = found


def checked(check: Check, schema: dict[str, Any]) -> Any:
    """A type of values that a function checks and returns."""
    return Annotated[Any, PlainValidator(check), WithJsonSchema(schema)]


def annotations_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """{option: its annotation}; Any where it cannot be read."""
    parameters = inspect.signature(factory).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    hints: dict[str, Any] = {}
    for holder in (factory, getattr(factory, "__init__", factory)):
        try:
            hints |= typing.get_type_hints(holder, localns={"Image": Image})
        except Exception:  # noqa: S112  # somebody's annotation of a name that is nowhere
            continue
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind not in variadic}


class Spelling:
    """Types of annotations.

    Args:
        thing: (kind) -> the check of a registered thing of that kind.
        anything: the check of a condition, or of what is annotated as nothing in particular.
    """

    def __init__(self, thing: Callable[[str], Check], anything: Check) -> None:
        self._thing = thing
        self.anything = checked(anything, {REFERENCE: "condition"})

    def of(self, annotation: Any) -> Any:
        """The type of what is written for an annotation."""
        found = self._of(annotation)
        return self.anything if found is None else found

    def thing(self, kind: str) -> Any:
        """The type of a registered thing."""
        return checked(self._thing(kind), {REFERENCE: kind})

    def _of(self, annotation: Any) -> Any:
        """The type; None of what a recipe cannot write, such as a tensor."""
        if annotation is float:  # pydantic's would make one of a whole number
            return NUMBER
        if annotation in _PLAIN:
            return annotation
        if annotation in _KINDS:
            return self.thing(_KINDS[annotation])
        origin, inside = get_origin(annotation), get_args(annotation)
        if origin is Literal:
            return annotation
        if origin is Annotated:
            return self._of(inside[0])
        if origin in (Union, types.UnionType):
            return self._union(inside)
        if origin in (dict, collections.abc.Mapping):
            return self._table(inside[:1], inside[1:])
        if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
            return list[self.of(inside[0])] if inside else None  # type: ignore[misc]
        return None

    def _union(self, members: Sequence[Any]) -> Any:
        if Image.Image in members:
            return PICTURE
        named = [member for member in members if member in _KINDS]
        if named:  # which may also be given by its name, or as functions
            empty = [None] if type(None) in members else []
            return Union[(self._of(named[0]), *empty)]
        tables = [get_args(m) for m in members if get_origin(m) in (dict, collections.abc.Mapping)]
        if tables:
            table = self._table([t[0] for t in tables], [t[1] for t in tables])
            lists = [self._of(m) for m in members if get_origin(m) is collections.abc.Sequence]
            return Union[(table, *lists)] if lists else table
        objects = (torch.device, torch.dtype, Tensor, np.ndarray, os.PathLike)
        found = [
            self._of(m) for m in members if not (isinstance(m, type) and issubclass(m, objects))
        ]
        known = [m for m in found if m is not None]
        return Union[tuple(known)] if known else None  # noqa: UP007

    def _table(self, keys: Sequence[Any], values: Sequence[Any]) -> Any:
        key, value = (self._of(_union_of(members)) or self.anything for members in (keys, values))
        return _pairs(key, value)


def _union_of(members: Sequence[Any]) -> Any:
    flat = [one for m in members for one in (get_args(m) if _is_union(m) else (m,))]
    return Any if Any in flat or not flat else Union[tuple(dict.fromkeys(flat))]  # noqa: UP007


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _pairs(key: Any, value: Any) -> Any:
    """The type of a table, or of a list of [key, value] pairs, whose keys may be tables too."""
    keys, values = TypeAdapter(key), TypeAdapter(value)

    def check(written: Any) -> Pairs:
        made, wrong = [], []
        for placed in _placed(written):
            pair = []
            for adapter, (place, one) in zip((keys, values), placed, strict=True):
                try:
                    pair.append(adapter.validate_python(one, strict=adapter is values))
                except ValidationError as error:
                    wrong.append((place, error))
            made.append(tuple(pair))
        if wrong:
            raise AtPlacesError(wrong)
        return Pairs(made)

    of_keys, of_values = keys.json_schema(), values.json_schema()
    pair = {"type": "array", "prefixItems": [of_keys, of_values], "minItems": 2, "maxItems": 2}
    table = {"type": "object", "propertyNames": of_keys, "additionalProperties": of_values}
    return checked(check, {"anyOf": [table, {"type": "array", "items": pair}]})


def _placed(written: Any) -> list[list[tuple[tuple[str | int, ...], Any]]]:
    """[(path, key), (path, value)] of each entry of a table or of pairs."""
    if isinstance(written, dict):
        return [[((key,), key), ((key,), value)] for key, value in written.items()]
    if isinstance(written, list) and all(isinstance(p, list) and len(p) == 2 for p in written):
        return [[((n, k), pair[k]) for k in (0, 1)] for n, pair in enumerate(written)]
    raise PydanticCustomError("table", "must be a table, or a list of [key, value] pairs")


def _number(written: Any) -> int | float:
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise PydanticCustomError("number", "must be a number")
    return written


def _picture(written: Any) -> Picture:
    if not isinstance(written, str) or not 0 < len(written) <= MAX_TEXT:
        raise PydanticCustomError("picture", "must be the path of a picture")
    return Picture(written)


NUMBER = checked(_number, {"type": "number"})
PICTURE = checked(
    _picture,
    {"type": "string", "contentMediaType": "image/*", "description": "Path of a picture."},
)
