"""Out-of-memory errors that say what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor


@contextmanager
def room_for_weights(place: Path, lighter: str) -> Iterator[None]:
    """A context for reading a network's weights from the folder ``place``.

    Args:
        lighter: advice how to read them with less memory.

    Raises:
        torch.OutOfMemoryError: with this advice, instead of the allocator's report.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(
            f"load_backend: the weights in {place} exceed the memory. {_sentence(lighter)}"
        ) from error


def exceeded(x: Tensor, lighter: str) -> torch.OutOfMemoryError:
    """The error of a forward whose images x (N, C, H, W) exceed the memory.

    Args:
        lighter: advice if x is one image.
    """
    advice = f"set Sampler(max_rows={len(x) // 2})" if len(x) > 1 else lighter
    return torch.OutOfMemoryError(
        f"Sampler: {len(x)} images of {tuple(x.shape[1:])} at once exceed the memory of "
        f"{x.device}. {_sentence(advice)}"
    )


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out."""
    # A GPU raises its own type; the CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _sentence(advice: str) -> str:
    return f"{advice[:1].upper()}{advice[1:]}."
