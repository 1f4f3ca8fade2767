"""``composer replay``: a picture again, and how it differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import composer
from composer import Result, Sampler
from composer.limits import MAX_PIXELS
from composer.recipes import Trust
from composer.saving import at_size
from composer_studio.remembered import Memory, call_again, read_memory

ROUNDING = 1
"""Of 255, by which machines and batches of other sizes differ."""

AGAIN = "-again"
"""Ends the name of a picture that was made again, by default."""


@dataclass(frozen=True)
class Replay:
    """A picture made again.

    Attributes:
        result: of one image.
        size: of the longer side of the old picture, in pixels.
        gap: the largest difference of a pixel, of 255; None where the sizes differ.
        remarks: what was otherwise then.
    """

    result: Result
    size: int
    gap: int | None
    remarks: tuple[str, ...]

    @property
    def same(self) -> bool:
        return self.gap is not None and self.gap <= ROUNDING

    @property
    def verdict(self) -> str:
        if self.gap is None:
            return "another size, so that the pictures cannot be compared"
        if self.gap == 0:
            return "the same picture"
        what = "the same picture but for rounding" if self.same else "another picture"
        return f"{what}; pixels differ by up to {self.gap} of 255"


def replayed(picture: Path, trust: Trust = ()) -> Replay:
    """Make a picture again and compare it with the file.

    Raises:
        ValueError, TypeError, LookupError: it carries no recipe, or one that makes no sampler.
        OSError: it cannot be read.
    """
    memory = read_memory(picture)
    call, place = call_again(memory)
    sampler = Sampler.from_recipe(memory.recipe, trust=trust)
    old = _pixels(picture)
    result = sampler.sample(**call)[place]
    size = max(old.shape[:2])
    new = np.asarray(at_size(result.images[0], size).convert("RGB"), dtype=int)
    gap = int(abs(new - old).max()) if new.shape == old.shape else None
    return Replay(result, size, gap, tuple(_remarks(memory, result)))


def _remarks(memory: Memory, result: Result) -> list[str]:
    remarks, ours = [], result.recipe["weights"]
    if memory.version != composer.__version__:
        remarks.append(f"It was made by composer {memory.version}; this is {composer.__version__}.")
    if memory.weights and ours and memory.weights != ours:
        remarks.append(f"It was made with weights {memory.weights[:12]}; these are {ours[:12]}.")
    if not (memory.weights and ours):
        remarks.append("Nobody knows whether the weights are the same.")
    return remarks


def _pixels(picture: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int_]]:
    with Image.open(picture, formats=["PNG", "WEBP"]) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{picture}: it has more than {MAX_PIXELS} pixels.")
        return np.asarray(opened.convert("RGB"), dtype=int)
