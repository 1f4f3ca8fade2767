"""Keep freed memory in the process, so that page faults do not decide a comparison.

glibc returns the top of the heap to the system when enough of it is free, and the next step then
takes the same pages again, one fault each: up to an eighth of the time of a network of 256 pixels.
Which of two programs pays it depends on where their last tensors happen to lie.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The parameters of glibc's mallopt."""


def keep_freed_memory() -> None:
    """From here on the process returns no memory, for both sides of a comparison alike."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(MMAP_THRESHOLD, 2**25)
