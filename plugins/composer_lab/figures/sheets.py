"""A sheet: labelled rows of images under a title, with a caption."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from composer.writing import write_atomically

# Inches; the axes' unit is an inch too, so that positions are measured in inches.
CELL, GAP, BETWEEN_GROUPS, LINE = 0.6, 0.05, 0.12, 0.16
LABEL, NOTE, TITLE = 9, 7.5, 11.5
"""Font size in points."""
CHARACTER = 0.0078
"""Mean width of a character in inches per point of font size."""
INK, PALE = "#222222", "#555555"
DPI, COLOURS = 140, 64


@dataclass(frozen=True, eq=False)
class Row:
    """Images side by side.

    Args:
        label: text at their left.
        images: (N, 1 or 3, H, W) in [-1, 1]; values beyond are clipped when drawn.
        notes: short text below each image, or none.
    """

    label: str
    images: Tensor
    notes: Sequence[str] = ()

    @property
    def height(self) -> float:
        return CELL + (LINE if self.notes else GAP)


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of images as one picture.

    Args:
        title: the subject, in one line.
        groups: groups of rows, from the top, with gaps between them.
        columns: headings, or none.
        caption: a description for the reader.
    """

    suffix: ClassVar[str] = ".png"
    title: str
    groups: Sequence[Sequence[Row]]
    columns: Sequence[str] = ()
    caption: str = ""

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group]

    @property
    def tops(self) -> list[float]:
        """The top of each row and the bottom of the last one, in inches from the top."""
        tops, top = [], 0.0
        for group in self.groups:
            for row in group:
                tops.append(top)
                top += row.height
            top += BETWEEN_GROUPS
        return [*tops, top - BETWEEN_GROUPS]

    def write(self, file: Path) -> None:
        """Draw to a PNG."""
        from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

        width = max(len(row.images) for row in self.rows) * (CELL + GAP)
        figure = Figure(figsize=(width, self.tops[-1]), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        for row, top in zip(self.rows, self.tops, strict=False):
            _draw_row(axes, row, top)
        axes.set(xlim=(0, width), ylim=(self.tops[-1], 0))
        axes.set_axis_off()
        self._write_words(axes, width)
        save_png(figure, file)

    def _write_words(self, axes: Any, width: float) -> None:
        """Write title and headings above and the caption below, as wide as labels plus images."""
        left = -0.1 - max(text_width(row.label, LABEL) for row in self.rows)
        lines = max((heading.count("\n") + 1 for heading in self.columns), default=0)
        for column, heading in enumerate(self.columns):
            place = column * (CELL + GAP) + CELL / 2, -0.05
            axes.text(*place, heading, size=NOTE, color=INK, ha="center", va="bottom")
        title = wrapped(self.title, width - left, TITLE)
        above = -0.12 - LINE * lines
        axes.text(left, above, title, size=TITLE, color=INK, weight="bold", va="bottom")
        caption = wrapped(self.caption, width - left, LABEL)
        axes.text(left, self.tops[-1] + 0.08, caption, size=LABEL, color=PALE, va="top")


def save_png(figure: Any, file: Path) -> None:
    """Save a matplotlib figure with all its text, in few colours, which takes a third of the
    bytes."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.12)
    picture = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    write_atomically(file, lambda path: picture.save(path, format="PNG", optimize=True))


def _draw_row(axes: Any, row: Row, top: float) -> None:
    middle = top + CELL / 2
    axes.text(-0.1, middle, row.label, size=LABEL, color=INK, ha="right", va="center")
    for column, image in enumerate(row.images.detach().float().cpu().clamp(-1, 1)):
        left = column * (CELL + GAP)
        pixels = ((image + 1) / 2).permute(1, 2, 0).squeeze(-1).numpy()
        edges = (left, left + CELL, top + CELL, top)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=edges, interpolation="nearest")
        axes.add_patch(_frame(left, top))
    for column, note in enumerate(row.notes):
        place = column * (CELL + GAP) + CELL / 2, top + CELL + 0.02
        axes.text(*place, note, size=NOTE, color=PALE, ha="center", va="top")


def _frame(left: float, top: float) -> Any:
    """A hairline, so that a white image has an edge."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    return Rectangle((left, top), CELL, CELL, fill=False, edgecolor="#bbbbbb", linewidth=0.4)


def text_width(text: str, size: float) -> float:
    """The approximate width in inches of the longest line of a text."""
    return max(map(len, text.split("\n"))) * CHARACTER * size


def wrapped(text: str, width: float, size: float) -> str:
    """The text in lines of at most ``width`` inches, and at least 28 characters."""
    characters = max(28, int(width / (CHARACTER * size)))
    return "\n".join(textwrap.wrap(text, characters))
