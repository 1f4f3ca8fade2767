"""The MNIST database: found in a folder, in ``$COMPOSER_MNIST``, or downloaded once and checked.

LeCun, Cortes, Burges; CC BY-SA 3.0. The four standard idx files, gzipped or not.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import urllib.error
import urllib.request
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from composer.arguments import choice
from composer.writing import make_folder, write_atomically

Split = Literal["train", "test"]

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"

# md5 of the uncompressed idx files, so that any gzip of them is accepted.
CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MOST = 16 + 60_000 * 28 * 28
"""Bytes of the largest of the four files; the most that is read of a file, packed or not."""
_PREFIX = {"train": "train", "test": "t10k"}


class DataError(RuntimeError):
    """A data file is missing, is damaged or cannot be downloaded."""


def to_model(pixels: Tensor) -> Tensor:
    """uint8 (N, 28, 28) -> float (N, 1, 28, 28) in [-1, 1]."""
    return pixels[:, None].float() / 127.5 - 1


def load_mnist(
    split: Split, folder: str | Path | None = None, mirror: str = MIRROR
) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 28, 28) and labels int64 (N,) of one split.

    Args:
        split: "train" (60,000) or "test" (10,000).
        folder: folder of the idx files. None: ``$COMPOSER_MNIST``, else the user's cache, to which
            missing files are downloaded from ``mirror``.

    Raises:
        ValueError: ``split`` is unknown.
        DataError: a file is missing, does not match its checksum, or cannot be downloaded.
    """
    choice(split, "split", _PREFIX)
    images = _idx(_read(f"{_PREFIX[split]}-images-idx3-ubyte", folder, mirror))
    labels = _idx(_read(f"{_PREFIX[split]}-labels-idx1-ubyte", folder, mirror))
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def sample_digits() -> tuple[Tensor, Tensor]:
    """Test digits shipped in the package: (N, 1, 28, 28) in [-1, 1] and labels (N,)."""
    data = load_safetensors((files(__package__) / "weights" / "digits.safetensors").read_bytes())
    return to_model(data["images"]), data["labels"].long()


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/composer/mnist``, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "composer" / "mnist"


def _read(name: str, folder: str | Path | None, mirror: str) -> bytes:
    chosen = folder or os.environ.get("COMPOSER_MNIST")
    root = Path(chosen) if chosen else cache_folder()
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return _checked(_content(path), name, str(path))
    if root.exists() and not root.is_dir():
        raise DataError(
            f"{root} must be a folder, got a file. Name the folder of the four MNIST idx files."
        )
    if chosen:
        raise DataError(
            f"{root} holds neither {name}.gz nor {name}. Put the four MNIST idx files there, "
            "or name no folder to download them."
        )
    return _download(name, root, mirror)


def _download(name: str, root: Path, mirror: str) -> bytes:
    """Download, check, and then move into place, so that an interruption leaves no file."""
    url = f"{mirror}/{name}.gz"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310  # mirror is ours
            packed = response.read(MOST + 1)
            if len(packed) <= MOST and response.length:  # a bounded read does not raise this
                raise http.client.IncompleteRead(packed, response.length)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise DataError(
            f"could not download {url} ({error}). Get the four idx files in another way and "
            "name their folder in COMPOSER_MNIST."
        ) from error
    raw = _checked(packed, name, url)
    make_folder(root)
    write_atomically(root / f"{name}.gz", lambda path: path.write_bytes(packed))
    return raw


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST + 1)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check its permissions."
        ) from error


def _checked(content: bytes, name: str, source: str) -> bytes:
    packed = content[:2] == b"\x1f\x8b"
    try:
        raw = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MOST + 1) if packed else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{source} must be an intact gzip file ({error}). Download it again."
        ) from error
    if max(len(raw), len(content)) > MOST:
        raise DataError(f"{source} is larger than any file of MNIST. Download it again.")
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != CHECKSUMS[name]:
        raise DataError(
            f"{source} must have the md5 {CHECKSUMS[name]}, got {found}. Download it again."
        )
    return raw


def _idx(raw: bytes) -> np.ndarray:
    """The idx format: two zero bytes, type, rank, big-endian sizes, then the data."""
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    return np.array(data)  # a copy that may be written to
