"""A checksum in a safetensors file, whose format has none: a flipped bit is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from composer.authoring import sha256_of as checksum

SHA256 = "composer.sha256"
"""In the file's metadata."""


def save_with_checksum(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write contiguous tensors of the CPU as a safetensors file that knows its checksum."""
    # Alone: of several entries safetensors writes any first, and equal files would differ.
    save_file(dict(weights), file, {SHA256: checksum(weights)})


def require_checksum(file: Path) -> None:
    """Refuse a safetensors file whose tensors do not have the checksum that it states.

    One that states none, as most of others do, is not read.

    Raises:
        ValueError: they have another; in a few words, for a sentence about the model.
    """
    with safe_open(file, framework="pt") as content:
        stated = (content.metadata() or {}).get(SHA256)
    if stated is not None and stated != checksum(load_file(file)):
        raise ValueError("its weights do not have their checksum")
