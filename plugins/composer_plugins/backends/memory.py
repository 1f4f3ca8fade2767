"""Out of memory, said so that it can be mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def memory_bound(x: Tensor) -> Iterator[None]:
    """Around one forward of a network over the images x (B, C, H, W).

    Raises:
        torch.OutOfMemoryError: with the bound to lower, in place of the allocator's report.
    """
    try:
        yield
    except RuntimeError as error:
        # On a GPU known by its type; the CPU's allocator raises a plain RuntimeError.
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        mend = (
            f"set Sampler(max_rows={len(x) // 2})"
            if len(x) > 1
            else "load it with dtype='float16' or with offload"
        )
        raise torch.OutOfMemoryError(
            f"{len(x)} images of {tuple(x.shape[1:])} at once exceed the memory of {x.device}; "
            f"{mend}"
        ) from error
