"""The way back: the library's recipe as a table that people write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from composer import UnknownNameError, installed
from composer.arguments import checked_seeds
from composer.recipes import decode
from composer.recipes.bounds import check_pixels, size_of
from composer_studio.written.models import KINDS, USE
from composer_studio.written.reading import models_of_installed

if TYPE_CHECKING:
    from PIL import Image


def table_of(recipe: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """The table of a library's recipe, and its pictures by the names that the table has for them.

    Options that have their default are left out. The backend is its name alone: what its options
    name may be elsewhere. ``library_recipe`` of the table is the recipe again, but for these.

    Raises:
        ValueError: it is no recipe, exceeds a limit, or holds what a table cannot, such as a
            tensor.
        LookupError: it contains a name that is not registered.
    """
    check_pixels(size_of(recipe), (1, 1))
    writer = _Writer()
    try:
        call, backend = recipe["call"], recipe["backend"]["name"]
        table = {
            "backend": str(backend),
            "plugins": writer.stack(recipe["plugins"]),
            "condition": writer.value(call["condition"], "condition"),
            "solver": writer.value(recipe["solver"], "solver"),
            "steps": recipe["num_inference_steps"],
            "seeds": seeds_as_text(checked_seeds(call["seeds"])),
            "max_rows": recipe.get("max_rows"),
        }
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, UnknownNameError):
            raise
        raise ValueError(
            "Recipe: it is none, or one of your own model. Use a picture that composer saved."
        ) from error
    if call.keys() & {"x", "t"}:
        raise ValueError("Recipe: it begins with given noise, which only Python can repeat.")
    return {name: value for name, value in table.items() if value is not None}, writer.pictures


def seeds_as_text(seeds: Sequence[int]) -> str | int | list[int]:
    """Seeds as one writes them: 7, "0:64", or a list."""
    if len(seeds) == 1:
        return seeds[0]
    first, end = seeds[0], seeds[0] + len(seeds)
    return f"{first}:{end}" if list(seeds) == list(range(first, end)) else list(seeds)


@dataclass(frozen=True)
class _Writer:
    pictures: dict[str, Image.Image] = field(default_factory=dict)

    def stack(self, plugins: Sequence[Any]) -> dict[str, Any]:
        """{label: table}; a plugin's label is its name, with a number if it is used again."""
        tables: dict[str, Any] = {}
        for written in plugins:
            if not isinstance(written, dict) or "plugin" not in written:
                self._unwritable(written)
            name = str(written["plugin"])
            label = name if name not in tables else f"{name}-{len(tables) + 1}"
            table = self.value(written, label)
            tables[label] = table if label != name else {k: table[k] for k in table if k != USE}
        return tables

    def value(self, written: Any, place: str) -> Any:
        """A value; ``place`` names the pictures in it."""
        if isinstance(written, list):
            return [self.value(one, f"{place}-{k}") for k, one in enumerate(written)]
        if not isinstance(written, dict):
            return written
        for kind in KINDS:
            if kind in written:
                return self._thing(kind, written[kind], written.get("options", {}), place)
        if "image" in written:
            name = re.sub(r"[^\w-]+", "-", place)[:60] + ".png"
            while name in self.pictures:
                name = f"again-{name}"
            self.pictures[name] = decode(written, installed())
            return name
        if "pairs" in written:
            pairs = [[self.key(k), self.value(v, f"{place}-{k}")] for k, v in written["pairs"]]
            short = all(isinstance(key, str) for key, _ in pairs)
            return dict(pairs) if short else pairs
        if "each" in written:
            return self.value(written["each"], place)
        if "scheduler" in written:
            return {"scheduler": written["scheduler"], **written.get("config", {})}
        if written == {"unconditional": True}:
            return written
        return self._unwritable(written)

    def key(self, written: Any) -> Any:
        """A key of pairs: a thing without options is its name."""
        value = self.value(written, "view")
        return value[USE] if isinstance(value, dict) and value.keys() == {USE} else value

    def _thing(self, kind: str, name: str, options: dict[str, Any], place: str) -> dict[str, Any]:
        fields = models_of_installed().of(kind, name).model_fields
        table = {USE: name}
        for option, written in options.items():
            value = self.value(written, f"{place}-{option}")
            known = fields.get(option)
            if value is not None and (known is None or value != known.default):
                table[option] = value
        return table

    def _unwritable(self, written: Any) -> Any:
        what = (
            next(iter(written), "nothing") if isinstance(written, dict) else type(written).__name__
        )
        raise ValueError(
            f"Recipe: it holds a part ({str(what)[:40]}) that only Python can make. Use "
            "Sampler.from_recipe."
        )
