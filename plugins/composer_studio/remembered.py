"""What a picture says of how it was made; read without trust in who wrote it.

Only the one text is read, at most as long as the library writes it: nothing is decompressed, no
other file is opened, and no name in it is looked up before ``Sampler.from_recipe`` checks it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from composer.errors import shown
from composer.recipes import call_of
from composer.saving import DESCRIPTION, KEY, LONGEST

_PNG, _RIFF, _WEBP = b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
_MOST = LONGEST + 10_000
"""Bytes of the chunk that holds the text."""
_CHUNKS = 100_000
_SHORT = 64


class NothingRememberedError(ValueError):
    """A picture that carries no recipe."""


@dataclass(frozen=True)
class Memory:
    """What a picture carries.

    Attributes:
        version: of the library that made it.
        seed: its own.
        recipe: of the call, for ``Sampler.from_recipe``.
        weights: sha256 of the networks, None if it is not known.
    """

    version: str
    seed: int
    recipe: dict[str, Any]
    weights: str | None


def read_memory(path: str | Path) -> Memory:
    """What a PNG or WebP carries.

    Raises:
        ValueError: it is no such picture, carries nothing, or something that no Composer wrote.
        OSError: the file cannot be read.
    """
    file = Path(path)
    with file.open("rb") as content:
        text = _text(content, file)
    return memory_of(text, str(file))


def memory_of(text: str, source: str) -> Memory:
    """The memory that a text holds.

    Raises:
        ValueError: it is none.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{source}: its text is no JSON. It was changed after it was saved."
        ) from (error)
    if not isinstance(said, dict) or not isinstance(said.get("recipe"), dict):
        raise ValueError(f"{source}: its text holds no recipe. It was changed after it was saved.")
    recipe, seed, version = said["recipe"], said.get("seed"), said.get("composer")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"{source}: its seed must be from 0 to 2**32 - 1, got {shown(seed)}.")
    weights = recipe.get("weights")
    known = isinstance(weights, str) and len(weights) == 64 and weights.isalnum()
    called = version if isinstance(version, str) and len(version) < 64 else "unknown"
    return Memory(called, seed, recipe, weights if known else None)


def call_again(memory: Memory) -> tuple[dict[str, Any], int]:
    """The arguments of ``sample`` that make this picture again, and its place in the result.

    A short batch is made whole: to the last bit an image is a function of its batch, too, because
    convolutions of other sizes round otherwise.

    Raises:
        ValueError, TypeError, LookupError: as ``composer.call_of``.
    """
    call = call_of(memory.recipe)
    if memory.seed in call["seeds"] and len(call["seeds"]) <= _SHORT:
        return call, call["seeds"].index(memory.seed)
    return {**call, "seeds": [memory.seed]}, 0


def _text(content: BinaryIO, file: Path) -> str:
    head = content.read(12)
    if head.startswith(_PNG):
        content.seek(len(_PNG))
        chunks, read = _png_chunks(content), _of_png
    elif head[:4] == _RIFF and head[8:] == _WEBP:
        chunks, read = _riff_chunks(content), _of_exif
    else:
        raise ValueError(f"{file}: it must be a PNG or WebP. Only these carry recipes.")
    for chunk in chunks:
        if (text := read(chunk)) is not None:
            return text
    raise NothingRememberedError(
        f"{file}: it carries no recipe. Composer writes one with result.save, and programs that "
        "edit or shrink pictures drop it."
    )


def _png_chunks(content: BinaryIO) -> Iterator[bytes]:
    """The short tEXt chunks of a PNG."""
    for _ in range(_CHUNKS):
        head = content.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind == b"tEXt" and length <= _MOST:
            yield content.read(length)
            content.seek(4, 1)
        else:
            content.seek(length + 4, 1)


def _riff_chunks(content: BinaryIO) -> Iterator[bytes]:
    """The short EXIF chunks of a WebP."""
    for _ in range(_CHUNKS):
        head = content.read(8)
        if len(head) < 8:
            return
        kind, length = struct.unpack("<4sI", head)
        if kind == b"EXIF" and length <= _MOST:
            yield content.read(length)
            content.seek(length % 2, 1)
        else:
            content.seek(length + length % 2, 1)


def _of_png(chunk: bytes) -> str | None:
    key, _, text = chunk.partition(b"\0")
    return text.decode("latin-1") if key == KEY.encode() else None


def _of_exif(chunk: bytes) -> str | None:
    exif = Image.Exif()
    try:
        exif.load(chunk)
        text = exif.get(DESCRIPTION)
    except Exception:  # whatever PIL makes of a damaged one
        return None
    return text if isinstance(text, str) and text.startswith("{") else None
