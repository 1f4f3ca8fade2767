"""Read pictures by one set of rules: files, PIL images of any mode, arrays of pixels.

:func:`open_picture` and :func:`open_mask` convert each to one of three PIL modes, L, RGB or I;16,
upright and without transparency. :mod:`composer.images` makes tensors of these. It imports this
module, and with it PIL, at the first picture.
"""

from __future__ import annotations

import os
from math import ceil, sqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from composer.arguments import FromRecipe
from composer.errors import shown
from composer.limits import MAX_PIXELS

_Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
PictureLike: TypeAlias = str | os.PathLike[str] | Image.Image | _Array

MAX_FITTED = MAX_PIXELS // 4
"""Most pixels of a picture that is kept to be fitted to a model. Its sides are twice those of the
largest model's images, and a recipe holds four such pictures."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""File formats that are read: only pixel formats."""
_DEEP = ("I", "F")
"""First letters of modes with more than 8 bits, which PIL's own conversions clip at 255."""
_NEARLY = 8
"""How much the channels (0 to 255) of a grey picture may differ after JPEG compression."""


def open_picture(source: PictureLike, name: str = "image") -> Image.Image:
    """Open a picture as a PIL image of mode L, RGB or I;16 (grey of 16 bits).

    The EXIF orientation is applied, and transparent pixels become white. Files and images of 16
    bits are scaled by 65535. Other whole numbers (modes I and F, arrays of int64) are read as 0 and
    1, as 8 bits or as 16 bits, the smallest range that holds the largest; fractions lie in [0, 1].

    Args:
        source: the path of a file (PNG, JPEG, WebP, BMP, GIF, TIFF), a PIL image of any mode, or
            an array (H, W) or (H, W, 1 to 4) of bool or whole numbers, as PIL's images become.
        name: the argument that messages name.

    Raises:
        TypeError: the source is of another type, or text of a recipe.
        FileNotFoundError: there is no such file.
        ValueError: the file holds no picture, or the values do not define white.
    """
    image = _upright(source, name)
    if _is_read(image):
        return bounded(image)
    if image.mode.startswith(_DEEP):
        return bounded(_deep(image, name))
    flat = _on_white(image)
    flat = bounded(flat.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))
    flat.info.clear()  # already applied, transparency included
    return flat


def open_mask(source: PictureLike, name: str = "mask") -> Image.Image:
    """Open a mask as a PIL image of mode L or I;16: white = 1, repaint.

    For white paint on a transparent layer, the alpha is the mask. In a picture of 0 and 1 alone,
    1 is white.

    Args:
        source: as in :func:`open_picture`.
        name: the argument that messages name.

    Raises:
        TypeError, FileNotFoundError, ValueError: as in :func:`open_picture`; or the mask has
            colours, or transparency that could mean two different masks.
    """
    image = _upright(source, name)
    if image.has_transparency_data and (alpha := _alpha_of_paint(image, name)) is not None:
        return bounded(alpha)
    mask = open_picture(image, name)
    if mask.mode == "RGB":
        if (np.ptp(np.asarray(mask, dtype=np.int16), axis=-1) > _NEARLY).any():
            raise ValueError(
                f"{name} must be grey, got a picture in colours. Draw it in black and white: white "
                "means repaint."
            )
        mask = mask.convert("L")
    values = np.asarray(mask)
    return Image.fromarray(values.astype(np.uint8) * 255) if values.max() == 1 else mask


def _upright(source: PictureLike, name: str) -> Image.Image:
    """The source as a PIL image of its own mode, turned by its EXIF orientation."""
    if isinstance(source, FromRecipe):  # a recipe must not open files
        raise TypeError(f"{name} must be a picture, got the text {shown(source)} of a recipe.")
    if isinstance(source, str) and "://" in source:
        raise FileNotFoundError(
            f"{name} must be a picture, got the address {shown(source)}. Download the picture, and "
            "give the path of the file."
        )
    if isinstance(source, str | os.PathLike):
        return _opened(Path(source), name)
    if isinstance(source, np.ndarray):
        return _of_array(source, name)
    if not isinstance(source, Image.Image):
        raise TypeError(
            f"{name} must be a PIL image, the path of one, an array or a floating-point tensor, "
            f"got {type(source).__name__}."
        )
    return source if _is_read(source) else ImageOps.exif_transpose(source)


def _is_read(image: Image.Image) -> bool:
    return image.mode in ("L", "RGB", "I;16") and not image.info and not image.getexif()


def _opened(path: Path, name: str) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} must be a picture, got {str(path)!r}. There is no such file."
        )
    try:
        with Image.open(path, formats=FORMATS) as image:
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{name} must be a picture, got {str(path)!r}, which cannot be read ({error}). Save "
            f"it as one of {', '.join(FORMATS)}."
        ) from error


def _of_array(values: _Array, name: str) -> Image.Image:
    """(H, W) or (H, W, C) of bool or whole numbers, C = 1 grey, 2 with alpha, 3 RGB, 4 RGBA."""
    if values.dtype.kind not in "biu":
        raise TypeError(f"{name} must be an array of numbers, got one of {values.dtype}.")
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or not 1 <= channels <= 4 or not values.size:
        raise ValueError(
            f"{name} must be an array of pixels (H, W) or (H, W, 1 to 4), got the shape "
            f"{values.shape}. Transpose it, or give a batch as a floating-point tensor in [-1, 1]."
        )
    pixels = _scaled(values, name)
    if channels == 1:
        return Image.fromarray(pixels.reshape(values.shape[:2]))
    if pixels.dtype == np.uint16:  # PIL has no colours of 16 bits
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _scaled(values: _Array, name: str) -> _Array:
    """Numbers as uint8 or uint16, where the largest number of the type is white."""
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values.astype(f"u{values.dtype.itemsize}")
    low, high = values.min(), values.max()
    whole = bool((values == np.floor(values)).all())
    if low >= 0 and high <= 1:
        return (values * 255).astype(np.uint8) if whole else _in_16_bits(values)
    if whole and low >= 0 and high <= 65535:
        return values.astype(np.uint8 if high <= 255 else np.uint16)
    raise ValueError(
        f"{name} must hold fractions in [0, 1] or whole numbers of 8 or 16 bits, got values from "
        f"{low:g} to {high:g}. Scale them, for example by (a - a.min()) / (a.max() - a.min())."
    )


def _in_16_bits(fractions: _Array) -> _Array:
    return np.rint(fractions.astype(np.float64) * 65535).astype(np.uint16)


def _deep(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    pixels = _scaled(values, name)
    if "transparency" in image.info:  # one grey of a PNG file, which PIL's conversions ignore
        pixels[values == image.info["transparency"]] = np.iinfo(pixels.dtype).max
    return Image.fromarray(pixels)


def bounded(picture: Image.Image, pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture of mode L, RGB or I;16, averaged in blocks to at most this number of pixels."""
    block = ceil(sqrt(picture.width * picture.height / pixels))
    if block == 1:
        return picture
    if picture.mode != "I;16":
        return picture.reduce(block)
    means = Image.fromarray(np.asarray(picture, dtype=np.float32)).reduce(block)
    return Image.fromarray(np.rint(np.asarray(means)).astype(np.uint16))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = _with_alpha(image)
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _with_alpha(image: Image.Image) -> Image.Image:
    # PIL's only conversion from premultiplied grey to RGBA.
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _alpha_of_paint(image: Image.Image, name: str) -> Image.Image | None:
    """The alpha of white paint as the mask; None for an opaque image."""
    if not image.mode.startswith(_DEEP):
        layer = np.asarray(_with_alpha(image))
        colours, alpha = layer[..., :3], layer[..., 3]
        if (alpha == 255).all():
            return None
        if (colours[alpha > 0] >= 255 - _NEARLY).all():
            return _with_alpha(image).getchannel("A")
    raise ValueError(
        f"{name} must be opaque, or white paint on a transparent layer, got {image.mode} with "
        "other colours and transparency. Give image.convert('RGBA').getchannel('A') to repaint "
        "what is painted, or PIL.ImageOps.invert of that to repaint what is transparent."
    )
