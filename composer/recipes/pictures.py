"""Pictures, tensors and arrays of a recipe: read from text, their size known beforehand."""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

from torch import Tensor

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = 24  # bytes to the end of width and height
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
"""Chunks of a PNG that are the picture. Texts and profiles may be compressed a thousandfold."""
_MAX_CHUNKS = 10_000


def size_of(text: str) -> tuple[int, int]:
    """(width, height) of a PNG, of which only the head is read.

    Raises:
        ValueError: it is no PNG.
    """
    head = _bytes(text[:32])
    if len(head) < _HEAD or not head.startswith(_SIGNATURE) or head[12:16] != b"IHDR":
        raise ValueError("Recipe: a picture must be a PNG in base64, got something else.")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def read_picture(text: Any) -> Any:
    """The PIL image of a PNG in base64; its size has been checked."""
    from PIL import PngImagePlugin  # noqa: PLC0415  # few recipes hold pictures

    picture = PngImagePlugin.PngImageFile(io.BytesIO(_without_extras(_bytes(text))))
    picture.load()
    return picture


def read_tensor(text: Any) -> Tensor:
    """The tensor of a safetensors file in base64."""
    from safetensors.torch import load  # noqa: PLC0415  # few recipes hold tensors

    tensor: Tensor = load(_bytes(text))[""]
    return tensor


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("Recipe: a picture or tensor must be text in base64.")
    return base64.b64decode(text)


def _without_extras(png: bytes) -> bytes:
    parts, place = [png[:8]], 8
    for _ in range(_MAX_CHUNKS):
        (length,) = struct.unpack(">I", png[place : place + 4])
        kind, end = png[place + 4 : place + 8], place + 12 + length
        if kind in _KEPT:
            parts.append(png[place:end])
        if kind == b"IEND":
            return b"".join(parts)
        place = end
    raise ValueError(f"Recipe: a picture has more than {_MAX_CHUNKS} parts.")
