"""The jigsaw: sixteen interlocking pieces in another arrangement."""

from __future__ import annotations

import cmath
import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from composer_plugins.transforms.motion import Place, centre, ground, paste, turn
from composer_plugins.transforms.permutation import PixelPermutation, checked_seed, seeded

SIDE = 4
# By cells, row by row. Each piece is a base piece (corner, edge or inner one, as they lie in the
# upper left quarter) after so many clockwise quarter turns; the picture of all pieces is the same
# after a quarter turn.
KINDS = "ceeceiieeiieceec"
TURNS = tuple(int(turns) for turns in "0001301133213222")
# The sides on which a base piece has a tab, numbered clockwise from the right: its other inner
# sides have the hole that fits. Only this choice lets the two edges of a side, which are turned
# alike, be the same piece.
TABS = {"c": (0,), "e": (0, 1), "i": (0,)}
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


@dataclass(frozen=True)
class Jigsaw(PixelPermutation):
    """A 4 x 4 jigsaw in another arrangement: pieces change places and turn to fit.

    Corners go to corners, edges to edges and inner pieces to inner places; pieces of one kind are
    equal up to quarter turns, so all fit exactly.

    Geng, Park & Owens 2024, "Visual Anagrams", arXiv 2311.17919, whose pieces were drawn by hand.

    Args:
        seed: seed of the arrangement; with the default, 12, no piece keeps its place.
    """

    seed: int = 12

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed, "Jigsaw: seed"))

    @functools.cached_property
    def sources(self) -> tuple[int, ...]:
        """The piece that comes to each place, row by row."""
        generator, sources = seeded(self.seed), [0] * SIDE**2
        for kind in TABS:
            places = [place for place, other in enumerate(KINDS) if other == kind]
            order = torch.randperm(len(places), generator=generator).tolist()
            for place, index in zip(places, order, strict=True):
                sources[place] = places[index]
        return tuple(sources)

    def order(self, height: int, width: int) -> Tensor:
        labels, order = pieces(height), torch.empty(height * width, dtype=torch.long)
        for place, source in enumerate(self.sources):
            pixels = (labels == place).flatten().nonzero()[:, 0]
            # Twice the offset from the middle of the cell, which is a whole number.
            down = 2 * (pixels // width) - _middle(place, height)[0]
            along = 2 * (pixels % width) - _middle(place, height)[1]
            for _ in range(_quarter_turns(source, place) % 4):
                down, along = -along, down  # back, counterclockwise
            rows = (down + _middle(source, height)[0]) // 2
            order[pixels] = rows * width + (along + _middle(source, height)[1]) // 2
        return order

    def accepts(self, height: int, width: int) -> bool:
        return height == width >= 4 * SIDE and height % SIDE == 0

    @property
    def sizes(self) -> str:
        return "square images of 16 pixels a side or more, divisible by 4"

    def between(self, x: Tensor, u: float) -> Tensor:
        """Pieces move around the middle of the image and turn."""
        size = x.shape[-1]
        labels, canvas = pieces(size), ground(x)
        for place, source in enumerate(self.sources):
            turns, start = _quarter_turns(source, place), _centre(source, size)
            now = _on_the_way(start, _centre(place, size), turns, centre(x), u)
            paste(canvas, x, labels == source, start, now, turn(90 * u * turns))
        return canvas


@functools.lru_cache(maxsize=8)
def pieces(size: int) -> Tensor:
    """(size, size) int64: the piece, 0 to 15 row by row, that each pixel belongs to."""
    cell = size // SIDE
    labels = torch.arange(SIDE**2).reshape(SIDE, SIDE)
    labels = labels.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    for piece, (kind, turns) in enumerate(zip(KINDS, TURNS, strict=True)):
        for side in TABS[kind]:
            direction = (side + turns) % 4
            row, column = divmod(piece, SIDE)
            top, left = (row + STEPS[direction][0]) * cell, (column + STEPS[direction][1]) * cell
            neighbour = labels[top : top + cell, left : left + cell]
            neighbour[_tab(cell).rot90(-direction)] = piece
    return labels


def _tab(cell: int) -> Tensor:
    """(cell, cell) bool: the part of the right neighbour's cell that a piece's tab covers.

    A disc on a neck; where a cell has too few pixels for that, a peg one pixel wide.
    """
    depth, along = torch.arange(cell)[None], torch.arange(cell)[:, None]
    if cell < 9:
        return (along == (cell - 1) // 2) & (depth < (cell + 1) // 4)
    depth, along = (depth + 0.5) / cell, (along + 0.5) / cell - 0.5
    disc = along**2 + (depth - 0.18) ** 2 <= 0.14**2
    return disc | ((along.abs() <= 0.08) & (depth <= 0.18))


def _middle(cell: int, size: int) -> tuple[int, int]:
    """Twice the middle of a cell, (row, column)."""
    row, column = divmod(cell, SIDE)
    step = size // SIDE
    return (2 * row + 1) * step - 1, (2 * column + 1) * step - 1


def _centre(cell: int, size: int) -> Place:
    row, column = _middle(cell, size)
    return row / 2, column / 2


def _on_the_way(start: Place, end: Place, turns: int, about: Place, u: float) -> Place:
    """A place between two, on an arc about the middle that comes closer to it half-way.

    On straight lines all pieces would meet in the middle; on a circle corners would leave the
    image.
    """
    first, last = (complex(p[1] - about[1], p[0] - about[0]) for p in (start, end))
    # The arc follows the piece's own turn, so that a corner swings rigidly about the middle.
    radius, rest = cmath.polar(last / first / 1j**turns)
    angle = turns * math.pi / 2 + rest
    drawn_in = 1 - 0.3 * math.sin(math.pi * u) * min(1, abs(angle) / math.pi)
    now = first * cmath.rect(radius**u * drawn_in, angle * u)
    return about[0] + now.imag, about[1] + now.real


def _quarter_turns(source: int, place: int) -> int:
    """Clockwise, the short way: -1, 0, 1 or 2."""
    return (TURNS[place] - TURNS[source] + 1) % 4 - 1
