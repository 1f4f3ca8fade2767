"""What a sampling call returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image
from torch import Tensor

from composer.images import to_pil


@dataclass
class Stats:
    """The cost of one sampling call. Rows are counted per image.

    Attributes:
        requested: rows the plugins asked for.
        evaluated: rows the model computed, after deduplication.
        calls: calls of the backend.
        model_seconds: time spent inside the backend.
        seconds: time of the whole call.
    """

    requested: int = 0
    evaluated: int = 0
    calls: int = 0
    model_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Result:
    """Samples and how they came to be.

    Attributes:
        x: (B, C, H, W) in [-1, 1], up to the model's overshoot.
        seeds: image k is a function of seeds[k].
        stats: what it cost.
    """

    x: Tensor
    seeds: tuple[int, ...]
    stats: Stats
    _describe: Callable[[], dict[str, Any]] = field(repr=False)

    @cached_property
    def images(self) -> list[Image.Image]:
        """The samples as PIL images, values outside [-1, 1] clipped."""
        return to_pil(self.x)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """JSON-able: ``Sampler.from_recipe(recipe).sample(**composer.call_of(recipe))`` repeats
        the call."""
        return self._describe()
