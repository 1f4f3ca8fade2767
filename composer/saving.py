"""Samples as files of pictures; a PNG or WebP carries the recipe that it was made by."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.arguments import integer
from composer.errors import shown
from composer.limits import MAX_PIXELS
from composer.writing import write_atomically, write_folder

if TYPE_CHECKING:
    from PIL import Image

KEY = "composer"
"""Of the text in a PNG, which a WebP has as the ImageDescription of its EXIF: JSON, {"composer":
version, "seed": of this image, "recipe": of the call}, the hash of the weights in the recipe."""
DESCRIPTION = 0x010E
"""The tag of that ImageDescription."""
LONGEST = 8_000_000
"""Letters of it that every reader of PNG files takes."""
_PHOTOGRAPH = 64
"""Pixels of the longer side from which on an image is enlarged smoothly."""
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def save_images(
    images: Sequence[Image.Image],
    seeds: Sequence[int],
    recipe: dict[str, Any],
    path: str | os.PathLike[str],
    size: int | None = None,
) -> list[Path]:
    """Write one image to a file, or any number into a folder; see :meth:`composer.Result.save`.

    Raises:
        TypeError, ValueError: no path, several images for one file, or a size out of range.
        OSError: a file cannot be written; those that were there are as they were.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"save: path must be a string or a Path, got {shown(path)}.")
    target = Path(path)
    sized = [at_size(image, _checked_size(size)) for image in images]
    if target.suffix and not target.is_dir():
        return [_save_one(sized, seeds, recipe, target)]
    names = list(_names(seeds))

    def write(folder: Path) -> None:
        for image, seed, name in zip(sized, seeds, names, strict=True):
            _write(image, folder / name, seed, recipe)

    write_folder(target, write)
    return [target / name for name in names]


def at_size(image: Image.Image, size: int | None) -> Image.Image:
    """An image whose longer side is ``size`` pixels, None for as it is.

    Smoothly (Lanczos), but for an image of less than :data:`_PHOTOGRAPH` pixels that is enlarged:
    each of its pixels becomes a square.
    """
    from PIL.Image import Resampling  # noqa: PLC0415, loads PIL

    longest = max(image.size)
    if size is None or size == longest:
        return image
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    squares = longest < min(size, _PHOTOGRAPH)
    return image.resize((width, height), Resampling.NEAREST if squares else Resampling.LANCZOS)


def _save_one(
    images: Sequence[Image.Image], seeds: Sequence[int], recipe: dict[str, Any], target: Path
) -> Path:
    if target.suffix.lower() not in _FORMATS:
        raise ValueError(
            f"save: path must end in {', '.join(_FORMATS)}, or be a folder, got {str(target)!r}. "
            "Make the folder first if it is to have such a name."
        )
    if len(images) != 1:
        raise ValueError(
            f"save: path must be a folder for {len(images)} images, got {str(target)!r}. Give a "
            "folder, choose an image by result[0], or save all in one as result.sheet()."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda unfinished: _write(images[0], unfinished, seeds[0], recipe))
    return target


def _write(image: Image.Image, file: Path, seed: int, recipe: dict[str, Any]) -> None:
    form = _FORMATS[file.suffix.lower()]
    _SAVERS[form](image, file, seed, recipe)


def _write_png(image: Image.Image, file: Path, seed: int, recipe: dict[str, Any]) -> None:
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415, loads PIL

    info, text = PngInfo(), _text(seed, recipe)
    if text:
        info.add_text(KEY, text)
    image.save(file, "PNG", pnginfo=info)


def _write_webp(image: Image.Image, file: Path, seed: int, recipe: dict[str, Any]) -> None:
    """Without loss, so that who makes it again can compare."""
    from PIL.Image import Exif  # noqa: PLC0415, loads PIL

    exif, text = Exif(), _text(seed, recipe)
    if text:
        exif[DESCRIPTION] = text
    image.save(file, "WEBP", lossless=True, exif=exif)


def _write_jpeg(image: Image.Image, file: Path, seed: int, recipe: dict[str, Any]) -> None:
    image.save(file, "JPEG")


_SAVERS = {"PNG": _write_png, "WEBP": _write_webp, "JPEG": _write_jpeg}


def _text(seed: int, recipe: dict[str, Any]) -> str:
    """What a PNG says of itself; nothing if that is more than readers take."""
    text = json.dumps({"composer": recipe["composer"], "seed": seed, "recipe": recipe})
    if len(text) <= LONGEST:
        return text
    warnings.warn(
        f"save: the recipe of {len(text):,} letters is too long for a picture, because it holds "
        "large pictures. Write result.recipe to a JSON file.",
        stacklevel=2,
    )
    return ""


def _names(seeds: Sequence[int]) -> Iterator[str]:
    """A name by each seed; the second image of one seed has 0007-2.png."""
    seen: Counter[int] = Counter()
    for seed in seeds:
        seen[seed] += 1
        yield f"{seed:04d}.png" if seen[seed] == 1 else f"{seed:04d}-{seen[seed]}.png"


def _checked_size(size: int | None) -> int | None:
    return None if size is None else integer(size, "save: size", 1, int(MAX_PIXELS**0.5))
