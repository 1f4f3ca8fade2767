"""Curves: panels side by side, each of lines with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from composer_lab.figures.sheets import LABEL, PALE, TITLE, save_png, wrapped
from composer_lab.training.output import running_mean

WIDTH, HEIGHT = 4.2, 3.2
"""Size of a panel in inches."""
TICKS = (1, 1.5, 2, 3, 5, 7)
"""On a logarithmic axis, times powers of ten."""


@dataclass(frozen=True, eq=False)
class Line:
    """Points (N,) of one line; a faint line is not in the legend."""

    x: Tensor
    y: Tensor
    faint: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """Lines over one pair of axes: {name: line}."""

    title: str
    lines: Mapping[str, Sequence[Line]]
    xlabel: str
    ylabel: str
    log: bool = False


@dataclass(frozen=True, eq=False)
class Curves:
    """Panels side by side as one picture."""

    suffix: ClassVar[str] = ".png"
    title: str
    panels: Sequence[Panel]
    caption: str = ""

    def write(self, file: Path) -> None:
        """Draw to a PNG."""
        from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

        width = WIDTH * len(self.panels)
        figure = Figure(figsize=(width, HEIGHT), dpi=130, layout="constrained")
        every = figure.subplots(1, len(self.panels), squeeze=False)[0]
        for axes, panel in zip(every, self.panels, strict=True):
            _draw_panel(axes, panel)
        figure.suptitle(wrapped(self.title, width, TITLE), size=TITLE, weight="bold")
        figure.supxlabel(wrapped(self.caption, width, LABEL), size=LABEL, color=PALE)
        save_png(figure, file)


def _draw_panel(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415

    for number, (name, lines) in enumerate(panel.lines.items()):
        for line in lines:
            look = {"linewidth": 0.4, "alpha": 0.3} if line.faint else {"label": name}
            axes.plot(line.x, line.y, color=f"C{number}", **look)
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    axes.set_title(panel.title, size=LABEL + 1)
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=TICKS))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25)
    axes.legend(fontsize=LABEL - 1)


def smoothed(values: Sequence[float]) -> Line:
    """The running mean of one value per step, over a twentieth of them and at most 100."""
    window = min(100, max(1, len(values) // 20))
    return Line(*running_mean(values, window))
