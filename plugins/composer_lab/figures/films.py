"""Films as GIFs: a sheet that changes, and an image that moves to its view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from composer import Result
from composer.contact_sheet import contact_sheet
from composer.writing import write_atomically

SCALE = 2
"""Enlargement: noise is hard to compress."""


@dataclass(frozen=True, eq=False)
class Film:
    """Labelled rows of images that change from frame to frame.

    Args:
        frames: {label: images (B, C, H, W) in [-1, 1]}, the same labels in each.
        headings: a line above each frame, without commas.
        milliseconds: duration of a frame; the last one lasts ten times as long.
    """

    suffix: ClassVar[str] = ".gif"
    frames: Sequence[Mapping[str, Tensor]]
    headings: Sequence[str]
    milliseconds: int = 150

    def write(self, file: Path) -> None:
        """Write a GIF that repeats."""
        first, *others = (
            contact_sheet(frame, SCALE, heading).convert("L")
            for frame, heading in zip(self.frames, self.headings, strict=True)
        )
        lasting = [self.milliseconds] * len(others) + [10 * self.milliseconds]
        write_atomically(
            file,
            lambda path: first.save(
                path, format="GIF", save_all=True, append_images=others, duration=lasting, loop=0
            ),
        )


@dataclass(frozen=True, eq=False)
class Turning:
    """Samples that move to each of their views and back, or far away and back."""

    suffix: ClassVar[str] = ".gif"
    result: Result
    captions: Sequence[str]
    scale: int = 4

    def write(self, file: Path) -> None:
        """Draw to a GIF."""
        self.result.animate(file, captions=self.captions, fps=15, scale=self.scale)
