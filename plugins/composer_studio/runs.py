"""A recipe sampled in batches: each is written before the next begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from composer import Result, Sampler, State, call_of
from composer.limits import MAX_SEEDS
from composer.recipes import Trust
from composer.writing import write_atomically
from composer_studio.written import Script, library_recipe

BATCH = 16
SHOWN = 64
"""Images of a sheet or a film."""
PREVIEWED, EVERY = 16, 0.5
"""Images of a preview, and seconds between two."""
PREVIEW = "preview.png"


@dataclass(frozen=True)
class Run:
    """A sampler and a call of it.

    Attributes:
        sampler: of the recipe.
        condition: of the call.
        seeds: of the call.
    """

    sampler: Sampler
    condition: Any
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, script: Script, trust: Trust = ()) -> Run:
        """The run of a recipe; loads its model.

        Raises:
            ValueError, TypeError, LookupError: it makes no sampler.
        """
        recipe = library_recipe(script)
        seeds = script.written.seeds
        call = call_of({**recipe, "call": {**recipe["call"], "seeds": seeds[:MAX_SEEDS]}})
        return cls(Sampler.from_recipe(recipe, trust=trust), call["condition"], seeds)

    def batches(
        self, size: int = BATCH, callback: Callable[[State], None] | None = None
    ) -> Iterator[Result]:
        """The results, ``size`` seeds each."""
        for part in parts(self.seeds, size):
            yield self.sampler.sample(self.condition, part, callback=callback)


def parts(seeds: Sequence[int], size: int) -> list[Sequence[int]]:
    """Seeds in order, so many at a time."""
    return [seeds[k : k + size] for k in range(0, len(seeds), size)]


def joined(results: Sequence[Result]) -> Result:
    """Results of one call as one, for a sheet or a film."""
    x = torch.cat([result.x for result in results])
    return replace(results[0], x=x, seeds=tuple(s for r in results for s in r.seeds))


class Preview:
    """A callback that renews a picture of x_0 every half second, and removes it at the end."""

    def __init__(self, folder: Path) -> None:
        self._file, self._next = folder / PREVIEW, 0.0

    def __call__(self, state: State) -> None:
        now = time.monotonic()
        if now < self._next or state.estimate is None or state.x.shape[1] not in (1, 3):
            return
        self._next = now + EVERY
        from composer.contact_sheet import contact_sheet  # noqa: PLC0415, loads PIL

        x0 = state.estimate.x0[:PREVIEWED]
        if x0.shape[-1] != state.x.shape[-1]:
            return
        sheet = contact_sheet({"": x0.float()}, scale=max(1, 112 // x0.shape[-1]))
        write_atomically(self._file, lambda unfinished: sheet.save(unfinished, "PNG"))

    def remove(self) -> None:
        """Remove the picture."""
        self._file.unlink(missing_ok=True)
