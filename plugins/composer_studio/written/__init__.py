"""Recipes that people write, in TOML or JSON, checked against what is registered."""

from composer_studio.written.errors import WrittenError
from composer_studio.written.models import Thing, Written
from composer_studio.written.reading import (
    Script,
    library_recipe,
    override,
    read_file,
    read_table,
    read_text,
)
from composer_studio.written.schema import json_schema
from composer_studio.written.tables import table_of

__all__ = [
    "Script",
    "Thing",
    "Written",
    "WrittenError",
    "json_schema",
    "library_recipe",
    "override",
    "read_file",
    "read_table",
    "read_text",
    "table_of",
]
