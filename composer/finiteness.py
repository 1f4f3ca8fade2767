"""Whether what a run makes stays finite, without a wait for the device at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from composer.errors import NonFiniteError


class Finiteness:
    """The sums of what a run makes, kept on the device and read once, when it ends.

    A number that is read back makes the program wait for the device. The sum of finite numbers is
    finite, unless the numbers are near the largest of their type; to take it is the least work.

    Args:
        at_once: read each sum when it is noted, which waits for the device.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self._noted: list[tuple[Tensor, Callable[..., str], tuple[Any, ...]]] = []
        self._last: Tensor | None = None

    def note(self, tensor: Tensor, sentence: Callable[..., str], *facts: Any) -> None:
        """Remember a tensor's sum, unless it was noted last, and what to say if it is not finite.

        Args:
            sentence: makes the sentence of ``facts``, which hold no tensors.
        """
        if tensor is self._last:
            return
        self._last = tensor
        wide = torch.float32 if tensor.dtype == torch.float16 else None
        self._noted.append((tensor.sum(dtype=wide), sentence, facts))
        if self.at_once:
            self.require()

    def require(self) -> None:
        """Raise a NonFiniteError for the first noted tensor that was not finite."""
        noted, self._noted = self._noted, []
        if not noted:
            return
        sums = torch.stack([total for total, _, _ in noted]).tolist()
        for total, (_, sentence, facts) in zip(sums, noted, strict=True):
            if not math.isfinite(total):
                raise NonFiniteError(sentence(*facts))
