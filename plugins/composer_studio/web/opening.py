"""What a visitor drops into the page: a picture that remembers, or a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer_studio.remembered import read_memory
from composer_studio.written import table_of
from composer_studio.written.reading import MAX_FILE, parsed

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Opened:
    """A recipe that was dropped in.

    Attributes:
        table: of it.
        pictures: that came with it, by the names in the table.
        text: as it was written, if it was text.
    """

    table: dict[str, Any]
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    text: str | None = None


def opened(file: Path) -> Opened:
    """Read a PNG or WebP of composer, with its own seed alone, or a recipe in TOML or JSON.

    Raises:
        ValueError, LookupError: it is none of these, or holds what a form and a text cannot.
        OSError: it cannot be read.
    """
    if file.suffix.lower() in (".toml", ".json"):
        with file.open("rb") as content:
            raw = content.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise ValueError(f"{file.name}: a recipe must have at most {MAX_FILE} bytes.")
        text = raw.decode("utf-8", "replace").replace("\r\n", "\n")
        json = file.suffix.lower() == ".json"
        return Opened(parsed(text, file.name, json), text=None if json else text)
    try:
        memory = read_memory(file)
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), file.name)) from error
    table, pictures = table_of(memory.recipe)
    return Opened({**table, "seeds": memory.seed}, pictures)
