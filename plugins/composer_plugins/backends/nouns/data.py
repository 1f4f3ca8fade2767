"""Training pictures of 32x32: Nouns composed from their traits, or a folder of images.

A Noun is one of two backgrounds, and over it a body, an accessory, a head and glasses: 50 million
pictures out of 34 KB. The traits are in the public domain (CC0; the Nouns project).
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from composer.authoring import generator_of
from composer.errors import shown
from composer.images import read_picture, to_pixels

BACKGROUNDS = ((213, 215, 225), (225, 215, 213))
LAYERS = {"bodies": 30, "accessories": 143, "heads": 254, "glasses": 23}
"""{trait over the background: count}, lowest first."""
COUNTS = (len(BACKGROUNDS), *LAYERS.values())
HEAD = 3
"""Position of the head in the five indices of a Noun."""
SIZE = 32
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@functools.cache
def load_traits() -> tuple[Tensor, ...]:
    """The layers over the background, each uint8 (n, 4, 32, 32): red, green, blue, alpha.

    Raises:
        ValueError: the file in the package is damaged.
    """
    with np.load(io.BytesIO((files(__package__) / "traits.npz").read_bytes())) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, count in LAYERS.items():
        array = arrays.get(name)
        shape = (count, SIZE, SIZE, 4)
        if array is None or array.shape != shape or array.dtype != np.uint8:
            raise ValueError(
                f"traits.npz: {name} must be uint8 of {shape}. Install the package again."
            )
        if not np.isin(array[..., 3], (0, 255)).all():
            raise ValueError(
                f"traits.npz: {name} must have alpha 0 or 255. Install the package again."
            )
    return tuple(torch.from_numpy(arrays[name]).permute(0, 3, 1, 2).contiguous() for name in LAYERS)


@functools.cache
def head_names() -> tuple[str, ...]:
    """The names of the heads, in the order of their indices."""
    names = json.loads((files(__package__) / "names.json").read_text(encoding="utf-8"))["heads"]
    if len(names) != LAYERS["heads"]:
        raise ValueError("names.json must name every head. Install the package again.")
    return tuple(name.removeprefix("head-") for name in names)


def compose(indices: Tensor | Sequence[int]) -> Tensor:
    """The pictures of (background, body, accessory, head, glasses): (..., 5) -> (..., 3, 32, 32).

    Each trait covers the one before where its alpha is 255, and shows it where alpha is 0.

    Returns:
        uint8.
    """
    chosen = _whole_numbers(indices)
    if bool(((chosen < 0) | (chosen >= torch.tensor(COUNTS))).any()):
        raise ValueError(
            f"indices of a Noun must be at least 0 and below {COUNTS}, got {chosen.tolist()}."
        )
    background, *traits = chosen.unbind(-1)
    colours = torch.tensor(BACKGROUNDS, dtype=torch.uint8)[background]
    picture = colours[..., None, None].expand(*chosen.shape[:-1], 3, SIZE, SIZE)
    for layer, index in zip(load_traits(), traits, strict=True):
        rgba = layer[index]
        picture = torch.where(rgba[..., 3:, :, :] == 255, rgba[..., :3, :, :], picture)
    return picture


def _whole_numbers(indices: Any) -> Tensor:
    a_noun = (
        f"a Noun must be {len(COUNTS)} whole numbers (background, body, accessory, head, glasses)"
    )
    try:
        chosen = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{a_noun}, got {shown(indices)}.") from error
    if chosen.dtype not in _WHOLE or chosen.ndim == 0 or chosen.shape[-1] != len(COUNTS):
        raise ValueError(f"{a_noun}, got the shape {tuple(chosen.shape)} of {chosen.dtype}.")
    return chosen.long()  # small dtypes index as masks do, or fail


def random_nouns(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random Nouns, each trait uniform: uint8 (count, 3, 32, 32), and their heads, int64."""
    indices = torch.stack([torch.randint(n, (count,), generator=generator) for n in COUNTS], dim=-1)
    return compose(indices), indices[:, HEAD]


@dataclass(frozen=True)
class Nouns:
    """An endless source of random Nouns, labelled by their heads.

    Args:
        epoch: the number of Nouns per epoch.
    """

    epoch: int = 25_600

    def __len__(self) -> int:
        return self.epoch

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        return random_nouns(size, generator_of(seed, 2**32 + step))


def load_images(folder: str | Path, size: int = SIZE) -> Tensor:
    """All images of a folder, in the order of their names: uint8 (N, 3, size, size).

    Each is turned as its EXIF data say, cropped to its central square and resized; transparent
    pixels become white. Sub-folders are ignored.

    Raises:
        ValueError: the folder does not exist, holds no image, or holds one that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"there is no folder {str(root)!r}. Name a folder of images.")
    found = sorted(file for file in root.iterdir() if file.suffix.lower() in _ENDINGS)
    if not found:
        raise ValueError(
            f"{root} must hold images that end in {', '.join(sorted(_ENDINGS))}. Sub-folders are "
            "ignored, so name the one that holds them."
        )
    return torch.stack([_read(file, size) for file in found])


def _read(file: Path, size: int) -> Tensor:
    return to_pixels(read_picture(file, (3, size, size), "crop", "load_images: image"))[0]
