"""Read a recipe's pictures, tensors and arrays from text, after their size was checked."""

from __future__ import annotations

import base64
import io
import math
import struct
from typing import Any

from torch import Tensor

from composer.errors import shown

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = 24  # bytes up to the end of width and height
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
"""Chunks of a PNG that hold the picture. Texts and profiles may expand a thousandfold."""
_MAX_CHUNKS = 10_000


def pixels_of(text: str) -> int:
    """The number of pixels of a PNG, read from its header; 0 if it is not a PNG."""
    try:
        head = base64.b64decode(text[:32])
    except ValueError:  # not base64
        return 0
    return math.prod(struct.unpack(">II", head[16:24])) if _is_png(head) else 0


def read_picture(text: Any) -> Any:
    """The PIL image of a PNG in base64, whose pixels were counted before."""
    from PIL import PngImagePlugin  # noqa: PLC0415  # few recipes hold pictures

    content = _bytes(text)
    if not _is_png(content):
        raise ValueError("Recipe: a picture must be a PNG in base64, got something else.")
    picture = PngImagePlugin.PngImageFile(io.BytesIO(_without_extras(content)))
    picture.load()
    return picture


def read_tensor(text: Any) -> Tensor:
    """The tensor of a safetensors file in base64."""
    from safetensors.torch import load  # noqa: PLC0415  # few recipes hold tensors

    tensor: Tensor = load(_bytes(text))[""]
    return tensor


def _is_png(content: bytes) -> bool:
    return len(content) >= _HEAD and content.startswith(_SIGNATURE) and content[12:16] == b"IHDR"


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Recipe: a picture or tensor must be text in base64, got {shown(text)}."
        ) from error


def _without_extras(png: bytes) -> bytes:
    """A PNG with only the chunks that hold the picture, its first header included."""
    parts, place = [png[:8]], 8
    for _ in range(_MAX_CHUNKS):
        (length,) = struct.unpack(">I", png[place : place + 4])
        kind, end = png[place + 4 : place + 8], place + 12 + length
        first = len(parts) == 1  # a second header could state another size than the counted one
        if kind in _KEPT and (first or kind != b"IHDR"):
            parts.append(png[place:end])
        if kind == b"IEND":
            return b"".join(parts)
        place = end
    raise ValueError(f"Recipe: a picture has more than {_MAX_CHUNKS} parts.")
