"""How many rows a network computes in one call."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import torch

from composer.arguments import integer
from composer.batch import Batch

MaxRows = int | Literal["auto"] | None

PIXELS: Final = 2**15
"""Pixels in one call on a CPU.

An activation of 128 channels then takes 8 MB. One of 32 MB or more is memory that the allocator of
Linux asks the system for, and gives back, each time; that takes as long as some layers. With fewer
pixels, the time of a call itself, and to read the network's weights, begins to count.
"""


def checked_max_rows(value: Any) -> MaxRows:
    """A bound of rows: "auto", a number of at least 1, or None."""
    if value is None or value == "auto":
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        raise ValueError(f"max_rows must be 'auto', an integer or None, got {value!r}.")
    return integer(value, "max_rows", least=1)


def rows_in_a_call(max_rows: MaxRows, batch: Batch, device: torch.device) -> int:
    """The most rows of one call for a batch.

    "auto" is no bound but on a CPU, where it is as many images as have ``PIXELS`` in all of their
    rows, at least one, and the calls are as equal as can be. It is decided by shapes alone, so that
    the same call makes the same image each time.
    """
    rows = len(batch)
    if max_rows != "auto":
        return max_rows or rows
    if device.type != "cpu":
        return rows
    height, width = batch.x.shape[-2:]
    if rows * height * width <= PIXELS:
        return rows
    images = len(set(batch.images))
    each = math.ceil(rows / images)
    calls = math.ceil(images / max(1, PIXELS // (each * height * width)))
    return math.ceil(images / calls) * each
