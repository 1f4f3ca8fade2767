"""A checksum in a safetensors file, whose format has none, so that loading detects damage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from composer.authoring import sha256_of as checksum

SHA256 = "composer.sha256"
"""Key in the file's metadata."""


def save_with_checksum(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write contiguous CPU tensors as a safetensors file with a checksum."""
    # The only entry, because safetensors orders several at random and equal files would differ.
    save_file(dict(weights), file, {SHA256: checksum(weights)})


def require_checksum(file: Path) -> None:
    """Raise a ValueError if the tensors of a safetensors file do not have its checksum.

    A file without a checksum, as most from others are, is not read.

    Raises:
        ValueError: the checksum differs; the message is a clause for a sentence about the model.
    """
    with safe_open(file, framework="pt") as content:
        stated = (content.metadata() or {}).get(SHA256)
    if stated is not None and stated != checksum(load_file(file)):
        raise ValueError("its weights do not have their checksum")
