"""Save samples as picture files; a PNG or WebP carries the recipe of its call."""

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
"""The key of the text in a PNG, and in a WebP the ImageDescription of its EXIF: JSON {"composer":
version, "seed": this image's, "recipe": of the call}. The recipe has the hash of the weights."""
DESCRIPTION = 0x010E
"""The EXIF tag of the ImageDescription."""
LONGEST = 8_000_000
"""The longest text that every reader of PNG files accepts."""
_PHOTOGRAPH = 64
"""Pixels of the longer side from which an image is enlarged smoothly."""
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def save_images(
    images: Sequence[Image.Image],
    seeds: Sequence[int],
    recipe: dict[str, Any] | None,
    path: str | os.PathLike[str],
    size: int | None = None,
) -> list[Path]:
    """Write one image to a file, or any number into a folder; see :meth:`composer.Result.save`.

    Raises:
        TypeError, ValueError: path is no path, several images go to one file, or size is out of
            range.
        OSError: a file cannot be written; existing files do not change.
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
    """Resize an image so that its longer side is ``size`` pixels; None keeps its size.

    It resamples smoothly (Lanczos), but enlarges an image of less than :data:`_PHOTOGRAPH` pixels
    by making each pixel a square.
    """
    from PIL.Image import Resampling  # noqa: PLC0415, loads PIL

    longest = max(image.size)
    if size is None or size == longest:
        return image
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    squares = longest < min(size, _PHOTOGRAPH)
    return image.resize((width, height), Resampling.NEAREST if squares else Resampling.LANCZOS)


def _save_one(
    images: Sequence[Image.Image], seeds: Sequence[int], recipe: dict[str, Any] | None, target: Path
) -> Path:
    if target.suffix.lower() not in _FORMATS:
        raise ValueError(
            f"save: path must end in {', '.join(_FORMATS)}, or be a folder, got {str(target)!r}. "
            "Make a folder of this name first if you mean a folder."
        )
    if len(images) != 1:
        raise ValueError(
            f"save: path must be a folder for {len(images)} images, got {str(target)!r}. Give a "
            "folder, choose one image with result[0], or save result.sheet()."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda unfinished: _write(images[0], unfinished, seeds[0], recipe))
    return target


def _write(image: Image.Image, file: Path, seed: int, recipe: dict[str, Any] | None) -> None:
    form = _FORMATS[file.suffix.lower()]
    text = _text(seed, recipe) if form in _CARRYING else ""
    options = _CARRYING[form](text) if text else {}
    # A WebP without loss, so that a repeated run can be compared with it exactly.
    image.save(file, form, lossless=True, **options)


def _in_png(text: str) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415, loads PIL

    info = PngInfo()
    info.add_text(KEY, text)
    return {"pnginfo": info}


def _in_webp(text: str) -> dict[str, Any]:
    from PIL.Image import Exif  # noqa: PLC0415, loads PIL

    exif = Exif()
    exif[DESCRIPTION] = text
    return {"exif": exif}


_CARRYING = {"PNG": _in_png, "WEBP": _in_webp}
"""{format: (text) -> the options of PIL that write it beside the picture}."""


def _text(seed: int, recipe: dict[str, Any] | None) -> str:
    """The text of a PNG; "" without a recipe, and with a warning if it is longer than readers
    accept."""
    if recipe is None:
        return ""
    text = json.dumps({"composer": recipe["composer"], "seed": seed, "recipe": recipe})
    if len(text) <= LONGEST:
        return text
    warnings.warn(
        f"save: the recipe of {len(text):,} letters is too long for a picture, because it holds "
        "large pictures. Save result.recipe as a JSON file.",
        stacklevel=2,
    )
    return ""


def _names(seeds: Sequence[int]) -> Iterator[str]:
    """A file name for each seed; the second image of seed 7 is 0007-2.png."""
    seen: Counter[int] = Counter()
    for seed in seeds:
        seen[seed] += 1
        yield f"{seed:04d}.png" if seen[seed] == 1 else f"{seed:04d}-{seen[seed]}.png"


def _checked_size(size: int | None) -> int | None:
    return None if size is None else integer(size, "save: size", 1, int(MAX_PIXELS**0.5))
