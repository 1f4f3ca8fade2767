"""Pictures to work on for who brings none: a photo, a web picture and a drawing, made here."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 256
Colour = tuple[int, int, int]
NAVY, GOLD, INK, PAPER = (0, 50, 98), (253, 181, 21), (30, 30, 35), (250, 248, 240)


def drawn() -> dict[str, Image.Image]:
    """All three by name."""
    return {"photo": tower(), "web picture": rose(), "drawing": bear()}


def tower() -> Image.Image:
    """A bell tower between trees under an evening sky, shaded and grained like a photo."""
    rows = np.linspace(0, 1, SIDE)[:, None, None]
    sky = (1 - rows) * np.array([90, 140, 205]) + rows * np.array([250, 215, 180])
    image = Image.fromarray(np.broadcast_to(sky, (SIDE, SIDE, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for column in range(108, 149):  # lit from the left
        light = 235 - 2 * (column - 108)
        draw.line([(column, 70), (column, 256)], (light, light - 8, light - 25))
    draw.polygon([(104, 48), (128, 4), (152, 48)], (120, 130, 135))
    draw.rectangle([104, 48, 152, 78], (215, 205, 185))
    for left in (110, 123, 136):
        draw.rectangle([left, 54, left + 8, 78], (60, 55, 60))
        draw.line([(left + 4, 96), (left + 4, 200)], (150, 142, 130), 2)
    draw.ellipse([116, 84, 140, 108], (245, 240, 225), (70, 60, 50))
    draw.line([(128, 96), (128, 87)], INK, 2)
    draw.line([(128, 96), (134, 99)], INK, 2)
    chance = np.random.default_rng(0)
    for _ in range(400):
        x, y = chance.uniform(0, SIDE), chance.normal(225, 14)
        if abs(x - 128) > 18 or y > 232:
            green = int(chance.integers(50, 115))
            draw.ellipse([x - 8, y - 8, x + 8, y + 8], (green // 2, green, green // 3))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), dtype=float)
    return Image.fromarray((soft + chance.normal(0, 4, soft.shape)).clip(0, 255).astype(np.uint8))


def rose() -> Image.Image:
    """A flat rose, as in an icon."""
    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.line([(128, 130), (122, 250)], (40, 120, 50), 8)
    draw.polygon([(123, 215), (60, 190), (80, 225)], (60, 150, 70))
    draw.polygon([(124, 190), (185, 160), (172, 200)], (60, 150, 70))
    for turn, radius in enumerate(range(66, 6, -10)):
        x, y = 128 + 7 * np.cos(2.1 * turn), 92 + 7 * np.sin(2.1 * turn)
        shade = 230 - 24 * (turn % 2) - 10 * turn
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], (shade, 25, 55))
    return image


def bear() -> Image.Image:
    """A crude bear that peeks from behind a 3x3 kernel."""
    image = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(image)

    def disc(x: int, y: int, radius: int, colour: Colour) -> None:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], colour, INK, 4)

    for x in (78, 178):
        disc(x, 52, 24, (150, 100, 60))
    disc(128, 100, 68, (165, 112, 68))
    disc(128, 118, 26, (225, 190, 150))
    for x in (104, 152):
        disc(x, 84, 6, INK)
    disc(128, 108, 8, INK)
    for row in range(3):
        for column in range(3):
            left, top = 68 + 40 * column, 132 + 38 * row
            colour = NAVY if (row + column) % 2 else GOLD
            draw.rectangle([left, top, left + 40, top + 38], colour, INK, 4)
    for x in (66, 190):
        disc(x, 140, 15, (165, 112, 68))
    return image
