"""What a sweep will make: variants of a recipe, each in batches of seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from composer_studio.runs import parts
from composer_studio.written import WrittenError, library_recipe, read_file
from composer_studio.written.reading import toml_value

MAX_VARIANTS = 1000


@dataclass(frozen=True)
class Job:
    """One batch.

    Attributes:
        variant: the index of its recipe.
        seeds: an image each.
    """

    variant: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All of a sweep.

    Attributes:
        recipes: of the library, one a variant, pictures included; all of one backend, or not.
        settings: what differs, one dict a variant.
        seeds: of each variant.
        size: pixels of the longer side of a picture; None for the model's own.
    """

    recipes: tuple[dict[str, Any], ...]
    settings: tuple[dict[str, Any], ...]
    seeds: tuple[int, ...]
    size: int | None = None

    @property
    def images(self) -> int:
        return len(self.recipes) * len(self.seeds)

    @property
    def digest(self) -> str:
        """Tells this sweep from another; more seeds and other batches are the same sweep."""
        recipes = [{**recipe, "call": recipe["call"]["condition"]} for recipe in self.recipes]
        written = json.dumps([recipes, self.settings, self.size], sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()

    def name_of(self, variant: int, seed: int) -> str:
        """The file of an image."""
        return f"{seed:04d}.png" if len(self.recipes) == 1 else f"{variant:03d}-{seed:04d}.png"

    def row_of(self, variant: int, seed: int) -> dict[str, Any]:
        """Its row of metadata.jsonl."""
        settings = {k.replace(".", "_"): v for k, v in self.settings[variant].items()}
        return {"file_name": self.name_of(variant, seed), "seed": seed, **settings}

    def jobs(self, batch: int, done: set[str]) -> list[Job]:
        """The batches of what is not done."""
        jobs = []
        for variant in range(len(self.recipes)):
            left = [s for s in self.seeds if self.name_of(variant, s) not in done]
            jobs += [Job(variant, tuple(part)) for part in parts(left, batch)]
        return jobs


def plan_of(recipe: Path, changes: Mapping[str, Any], over: Sequence[str]) -> Plan:
    """Read and check all variants of a recipe.

    Args:
        recipe: the file.
        changes: as for ``read_file``.
        over: texts such as "plugins.cfg.scale=2,3,5"; several make all combinations.

    Raises:
        WrittenError: a text or a variant is wrong.
    """
    axes = [_axis(text) for text in over]
    paths = [path for path, _ in axes]
    if len(set(paths)) < len(paths):
        raise WrittenError([f"--over must name a path once, got {', '.join(paths)}."])
    settings = [dict(zip((p for p, _ in axes), values, strict=True)) for values in _all(axes)]
    scripts = [read_file(recipe, {**changes, **setting}) for setting in settings]
    first = scripts[0].written
    seeds = tuple(dict.fromkeys(first.seeds))
    recipes = [library_recipe(script) for script in scripts]
    return Plan(tuple(recipes), tuple(settings), seeds, first.output.size)


def _axis(text: str) -> tuple[str, list[Any]]:
    path, equals, listed = text.partition("=")
    if not equals or not path.strip() or not listed.strip():
        raise WrittenError([f"--over must be such as plugins.cfg.scale=2,3,5, got {text!r}."])
    if path.strip().split(".")[0] in ("seeds", "output"):
        raise WrittenError([f"--over must be of what makes an image, got {path.strip()!r}."])
    values = toml_value(f"[{listed}]")
    values = values if isinstance(values, list) else listed.split(",")
    if any(value in values[:k] for k, value in enumerate(values)):
        raise WrittenError([f"--over must name a value once, got {text!r}."])
    return path.strip(), values


def _all(axes: Sequence[tuple[str, list[Any]]]) -> list[tuple[Any, ...]]:
    found = list(product(*(values for _, values in axes)))
    if len(found) > MAX_VARIANTS:
        raise WrittenError([f"--over makes {len(found)} variants; at most are {MAX_VARIANTS}."])
    return found
