"""The JSON Schema of recipes, from which editors complete."""

from __future__ import annotations

from typing import Any

from composer_studio.written.annotations import REFERENCE
from composer_studio.written.models import KINDS, USE, Models
from composer_studio.written.reading import models_of_installed

OFFERED = (*KINDS, "backend")


def json_schema(models: Models | None = None) -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of what is registered."""
    chosen = models_of_installed() if models is None else models
    partial = Models(chosen.registry, partial=True)
    schema = chosen.whole.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for kind in OFFERED:
        source = partial if kind == "score" else chosen  # a recipe's score may lack options
        for name in chosen.names(kind):
            one = source.of(kind, name).model_json_schema()
            definitions |= one.pop("$defs", {})
            definitions[f"{kind} {name}"] = one
        definitions[kind] = _one_of(kind, chosen.names(kind))
    definitions["condition"] = _condition()
    schema["properties"]["plugins"] = {
        "type": "object",
        "description": "The stack, the outermost first.",
        "properties": {name: _reference(f"plugin {name}") for name in chosen.names("plugin")},
        "additionalProperties": _used("plugin", chosen.names("plugin")),
    }
    schema["properties"]["$schema"] = {"type": "string"}
    finished: dict[str, Any] = _finished(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **finished}


def _one_of(kind: str, names: list[str]) -> dict[str, Any]:
    return {"anyOf": [{"enum": names}, _used(kind, names)]}


def _used(kind: str, names: list[str]) -> dict[str, Any]:
    """A table that says which it uses; without that, an editor would offer the options of all."""
    return {
        "type": "object",
        "required": [USE],
        "properties": {USE: {"enum": names}},
        "allOf": [
            {"if": {"properties": {USE: {"const": n}}}, "then": _reference(f"{kind} {n}")}
            for n in names
        ],
    }


def _condition() -> dict[str, Any]:
    kinds = [_reference(kind) for kind in ("plugin", "transform", "decomposition", "solver")]
    tables = {"type": "object", "minProperties": 1}
    scalars = [{"type": t} for t in ("string", "number", "boolean", "null")]
    return {"anyOf": [*scalars, *kinds, tables, {"type": "array"}]}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name.replace(' ', '%20')}"}


def _finished(value: Any) -> Any:
    """The schema with a reference in place of each mark of a kind."""
    if isinstance(value, list):
        return [_finished(one) for one in value]
    if not isinstance(value, dict):
        return value
    marked = {key: _finished(one) for key, one in value.items() if key != REFERENCE}
    return {**marked, **_reference(value[REFERENCE])} if REFERENCE in value else marked
