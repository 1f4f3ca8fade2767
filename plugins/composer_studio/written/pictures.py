"""Pictures that a recipe names by a path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from composer.limits import MAX_PIXELS
from composer.pictures import FORMATS, MAX_FITTED, open_picture
from composer_studio.written.errors import WrittenError

_OF_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def open_within(path: str, folder: Path | None, source: str) -> Any:
    """The PIL image of a path relative to a folder, inside of it, upright.

    One of more than a few million pixels is averaged in blocks, as plugins do.

    Raises:
        WrittenError: it is elsewhere, not there, or no picture.
    """
    file = Path(path) if folder is None else _inside(path, folder, source)
    if not file.is_file():
        raise WrittenError([f"{source}: there is no picture {path!r}."])
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > 4 * MAX_PIXELS:
                raise WrittenError([f"{source}: the picture {path!r} is too large."])
            picture = ImageOps.exif_transpose(opened)
        if picture.mode not in _OF_PNG:
            picture = open_picture(picture, f"{source}: {path}")
        return _bounded(picture)
    except (OSError, SyntaxError, TypeError, ValueError) as error:
        if isinstance(error, WrittenError):
            raise
        raise WrittenError([f"{source}: {path!r} cannot be read as a picture."]) from error


def _inside(path: str, folder: Path, source: str) -> Path:
    root = folder.resolve()
    try:
        file = (root / path).resolve()
        inside = file.is_relative_to(root) and not Path(path).is_absolute()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have
        inside = False
    if not inside:
        raise WrittenError(
            [f"{source}: the picture {path!r} must lie in the recipe's folder. Copy it there."]
        )
    return file


def _bounded(picture: Any) -> Any:
    block = 1
    while picture.width * picture.height > MAX_FITTED * block**2:
        block += 1
    if block == 1:
        return picture
    if picture.mode in ("P", "1"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture.reduce(block) if picture.mode != "I;16" else picture
