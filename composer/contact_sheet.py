"""Contact sheets: labelled rows of images in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from composer.arguments import integer
from composer.errors import shown
from composer.images import to_pil

if TYPE_CHECKING:
    from PIL import Image

_MARGIN = 4
_BACKGROUND, _INK = (255, 255, 255), (60, 60, 60)


def contact_sheet(rows: Mapping[str, Tensor], scale: int = 3, columns: str = "") -> Image.Image:
    """Draw labelled rows of images in one picture.

    Args:
        rows: {label: images (B, C, H, W) in [-1, 1]}, all of one size.
        scale: whole enlargement of each pixel, 1 to 100.
        columns: comma-separated headings of the columns; none if empty.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415, loaded when a sheet is drawn

    if not isinstance(rows, Mapping) or not rows:
        raise TypeError(f"contact_sheet: rows must be a dict of images, got {shown(rows)}.")
    integer(scale, "contact_sheet: scale", 1, most=100)
    pictures = {label: to_pil(images) for label, images in rows.items()}
    first = next(iter(pictures.values()))[0]
    width, height = (side * scale + _MARGIN for side in first.size)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = int(max(measure.textlength(label) for label in rows)) + 2 * _MARGIN
    headings = columns.split(",") if columns else []
    top = 16 if headings else _MARGIN
    size = (left + width * max(map(len, pictures.values())), top + height * len(rows))
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        draw.text((left + column * width, 2), heading, fill=_INK)
    for row, (label, images) in enumerate(pictures.items()):
        draw.text((_MARGIN, top + row * height + height // 2 - 6), label, fill=_INK)
        for column, image in enumerate(images):
            large = image.resize((width - _MARGIN, height - _MARGIN), Image.Resampling.NEAREST)
            sheet.paste(large, (left + column * width, top + row * height))
    return sheet
