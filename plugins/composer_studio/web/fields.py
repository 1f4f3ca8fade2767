"""What a form asks for: fields, from the schema that recipes are checked by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import tomlkit

from composer import installed
from composer.errors import shown
from composer_studio.written.annotations import REFERENCE
from composer_studio.written.models import USE
from composer_studio.written.reading import models_of_installed, parsed

WHOLE = re.compile(r"-?\d{1,9}")
DECIMAL = re.compile(r"-?\d{0,9}\.\d{1,9}")
_ALWAYS = {"fit": "crop"}
"""What a form always says: uploads and canvases seldom have the size of a model."""


@dataclass(frozen=True)
class Field:
    """One option of a registered thing.

    Attributes:
        name: as recipes have it.
        kind: how it is entered: "switch", "whole", "number", "choice", "thing", "picture",
            "painted" (a picture and the mask that is painted over it), "pairs" or "value".
        required, default: as the constructor has it.
        choices: of a choice; the names of a thing, or of the keys of pairs.
    """

    name: str
    kind: str
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name in words."""
        words = self.name.replace("_", " ")
        return words[:1].upper() + words[1:]


@cache
def fields_of(kind: str, name: str) -> tuple[Field, ...]:
    """The fields of a registered thing."""
    schema = models_of_installed().of(kind, name).model_json_schema()
    needed = schema.get("required", ())
    fields = [
        _field(option, said, option in needed)
        for option, said in schema["properties"].items()
        if option != USE
    ]
    return tuple(_paired(fields))


def description_of(kind: str, name: str) -> str:
    """The first line about a registered thing."""
    return installed().find(kind, name).description.replace("``", "")


def _field(name: str, said: Mapping[str, Any], required: bool) -> Field:
    forms = [form for form in said.get("anyOf", [said]) if form.get("type") != "null"]
    first: Mapping[str, Any] = forms[0] if forms else {}
    kind, choices = _kind(first)
    default = said.get("default")
    if name in _ALWAYS and default is None:
        return Field(name, kind, True, _ALWAYS[name], tuple(choices))
    return Field(name, kind, required, default, tuple(choices))


def _kind(form: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How a form of a value is entered, and what there is to choose."""
    if "contentMediaType" in form:
        return "picture", []
    if "propertyNames" in form:
        return "pairs", _names(form["propertyNames"])
    if "enum" in form:
        return "choice", form["enum"]
    if REFERENCE in form and form[REFERENCE] != "condition":
        return "thing", _names(form)
    simple = {"boolean": "switch", "integer": "whole", "number": "number"}
    return simple.get(form.get("type", ""), "value"), []


def _names(form: Mapping[str, Any]) -> list[str]:
    kind = form.get(REFERENCE, "condition")
    return [] if kind == "condition" else models_of_installed().names(kind)


def _paired(fields: list[Field]) -> Iterator[Field]:
    """The fields; an image with a mask is one, which is painted."""
    pictures = {field.name for field in fields if field.kind == "picture"}
    both = {"image", "mask"} <= pictures
    for field in fields:
        if both and field.name == "image":
            yield replace(field, kind="painted")
        elif not (both and field.name == "mask"):
            yield field


def value_of(text: str) -> Any:
    """What somebody typed: a number, a table, list or quoted text of TOML, or else plain text.

    Raises:
        WrittenError: it begins like a table or list and is none.
    """
    text = text.strip()
    if WHOLE.fullmatch(text):
        return int(text)
    if DECIMAL.fullmatch(text):
        return float(text)
    if text.startswith(("{", "[")):
        return parsed(f"value = {text}", f"{shown(text)}")["value"]
    if len(text) > 1 and text[0] == text[-1] == '"':
        return parsed(f"value = {text}", f"{shown(text)}")["value"]
    return text


def text_of(value: Any) -> str:
    """The text of which :func:`value_of` makes a value; "" of None."""
    if value is None:
        return ""
    if isinstance(value, str):
        plain = value == value.strip() and "\n" not in value and not value.startswith(("{", "["))
        plain = plain and value[:1] != '"' and value_of(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    return str(inline(value).as_string())


def recipe_text(table: Mapping[str, Any]) -> str:
    """A recipe as TOML, a table a plugin."""
    document = tomlkit.document()
    for name, value in table.items():
        if name not in ("plugins", "output"):
            document.add(name, inline(value))
    stack = tomlkit.table(is_super_table=True)
    for label, options in table.get("plugins", {}).items():
        stack.add(label, _table(options))
    if stack:
        document.add("plugins", stack)
    if table.get("output"):
        document.add("output", _table(table["output"]))
    return tomlkit.dumps(document)


def _table(options: Mapping[str, Any]) -> Any:
    table = tomlkit.table()
    for name, value in options.items():
        table.add(name, inline(value))
    return table


def inline(value: Any) -> Any:
    """A value of TOML on one line, so that the order of its keys stays."""
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, one in value.items():
            table.append(key, inline(one))
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        for one in value:
            array.append(inline(one))
        return array
    return tomlkit.item(value)
