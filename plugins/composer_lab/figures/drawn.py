"""A few digits drawn quickly by mouse, and two drawings of other things.

``python -m composer_lab.figures.drawn`` draws the strokes below into the PNGs of ``data/``.
"""

from __future__ import annotations

from importlib.resources import files
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from composer.images import to_tensor

SIDE = 28
FINE = 16
"""Drawn points per pixel along each side, for smooth edges."""
Stroke = tuple[float, tuple[tuple[float, float], ...]]
"""The pen's width, and its path of points (x, y), in pixels."""

DRAWINGS: dict[str, tuple[Stroke, ...]] = {
    "2": (
        (2.2, ((8.5, 9), (9.6, 6.2), (13, 4.6), (17.4, 5), (19.3, 8), (18, 12), (14.2, 15.6))),
        (2.2, ((14.2, 15.6), (10.4, 19.4), (8.3, 22.4), (12, 21.6), (16, 22.3), (21.5, 21.4))),
    ),
    "4": (
        (2.0, ((12.6, 4.2), (10.4, 9), (7.2, 14.6), (12, 15), (16.4, 14.2), (22, 14.9))),
        (2.0, ((17.6, 6.4), (17, 12), (17.4, 18), (16.6, 24.4))),
    ),
    "7": (
        (2.4, ((6.6, 6.6), (11, 6), (15.6, 6.9), (20.8, 5.8), (18.4, 10), (15, 16.4))),
        (2.4, ((15, 16.4), (13.4, 20), (12.4, 24))),
        (1.8, ((11.4, 14.6), (15, 14), (19.2, 14.8))),
    ),
    "house": (
        (1.9, ((7, 23), (6.6, 17), (7.2, 12), (14, 5), (21.3, 11.6), (20.8, 17), (21.2, 23.4))),
        (1.9, ((21.2, 23.4), (14, 22.8), (7, 23))),
        (1.7, ((12.4, 22.8), (12.2, 17.6), (15.8, 17.4), (16, 22.6))),
    ),
    "face": (
        (1.9, ((14, 4), (8, 6), (5, 12), (6, 19), (11, 23.6), (17, 23.8), (22, 19), (23, 12))),
        (1.9, ((23, 12), (20, 6.4), (13.6, 4.2))),
        (2.4, ((10.6, 10.6), (10.9, 12.2))),
        (2.4, ((17.4, 10.2), (17.2, 12))),
        (1.8, ((9.6, 17), (12, 19.4), (15.6, 19.6), (18.6, 16.8))),
    ),
}


def render(strokes: tuple[Stroke, ...]) -> Image.Image:
    """White strokes on black, 28x28, grey at their edges."""
    large = Image.new("L", (SIDE * FINE, SIDE * FINE))
    draw = ImageDraw.Draw(large)
    for width, points in strokes:
        path = [(x * FINE, y * FINE) for x, y in points]
        draw.line(path, 255, round(width * FINE))
        for x, y in path:  # round ends and corners
            radius = width * FINE / 2
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], 255)
    return large.resize((SIDE, SIDE), Image.Resampling.BOX)


def shipped(file: str) -> Tensor:
    """A picture of ``data/``, (1, 1, 28, 28) in [-1, 1]."""
    raw = (files(__package__) / "data" / file).read_bytes()
    return to_tensor(Image.open(BytesIO(raw)))


def drawn() -> dict[str, Tensor]:
    """{name: picture (1, 1, 28, 28)}."""
    return {f"a {name}": shipped(f"drawn-{name}.png") for name in DRAWINGS}


if __name__ == "__main__":
    for name, strokes in DRAWINGS.items():
        file = Path(__file__).parent / "data" / f"drawn-{name}.png"
        render(strokes).save(file, optimize=True)
