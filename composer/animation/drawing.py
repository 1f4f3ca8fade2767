"""The pictures of an animation as functions of the share of the way, from 0 to 1."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from composer.animation.film import COLUMNS, PAPER, Picture, grey
from composer.images import to_pil
from composer.transforms import Transform

MARGIN = 4
FAR = 12.0
"""The factor by which an image without views shrinks."""
INK = 60
LINE = 28
"""Height of the line of captions."""


def moving(x: Tensor, view: Transform, scale: int) -> Picture:
    return lambda share: _side_by_side(view.frame(x, share), scale)


def going_away(x: Tensor, scale: int) -> Picture:
    """The sheet of all images shrinks by the same factor each second."""
    near = _side_by_side(x, scale)

    def picture(share: float) -> Image.Image:
        if share == 0:
            return near
        size = [max(1, round(side * FAR**-share)) for side in near.size]
        canvas = Image.new(near.mode, near.size, grey(near.mode, PAPER))
        middle = ((near.width - size[0]) // 2, (near.height - size[1]) // 2)
        canvas.paste(near.resize((size[0], size[1]), Image.Resampling.LANCZOS), middle)
        return canvas

    return picture


def captioned(picture: Picture, first: str, last: str) -> Picture:
    """Add a caption line: the image's caption fades out, and the view's caption fades in."""

    def with_line(share: float) -> Image.Image:
        image = picture(share)
        page = Image.new(image.mode, (image.width, image.height + LINE), grey(image.mode, PAPER))
        page.paste(image, (0, 0))
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
        for text, strength in ((first, 1 - 4 * share), (last, 4 * share - 3)):
            if strength > 0:
                ink = grey(image.mode, round(PAPER + strength * (INK - PAPER)))
                place = (image.width / 2, image.height + LINE / 2)
                draw.text(place, text, fill=ink, font=font, anchor="mm")
        return page

    return with_line


def _side_by_side(x: Tensor, scale: int) -> Image.Image:
    """Images (B, C, H, W) in rows of eight, each pixel a square; a single image has no margin."""
    images = [
        i.resize((i.width * scale, i.height * scale), Image.Resampling.NEAREST) for i in to_pil(x)
    ]
    columns, rows = min(len(images), COLUMNS), -(-len(images) // COLUMNS)
    step = images[0].width + MARGIN, images[0].height + MARGIN
    size = columns * step[0] - MARGIN, rows * step[1] - MARGIN
    sheet = Image.new(images[0].mode, size, grey(images[0].mode, PAPER))
    for k, image in enumerate(images):
        sheet.paste(image, (k % COLUMNS * step[0], k // COLUMNS * step[1]))
    return sheet
