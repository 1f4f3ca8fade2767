"""Where a network runs and in what it computes, from the options of a loader."""

from __future__ import annotations

import torch

from composer.arguments import choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def placement(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of these names.

    Raises:
        ValueError: no such name, or a device that this machine lacks.
    """
    choice(dtype, "dtype", DTYPES)
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is none that torch knows; use 'cpu'") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} is not available; use 'cpu'")
    return place, DTYPES[dtype]
