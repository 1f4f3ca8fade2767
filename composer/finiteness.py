"""Detect NaN and Inf in a run without a wait for the device at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from composer.errors import NonFiniteError


class Finiteness:
    """Sums of a run's tensors, kept on the device and read once at the end.

    To read a number back, the program must wait for the device. The sum of finite numbers is finite
    unless they are near the largest of their type, and it is the cheapest test.

    Args:
        at_once: read each sum when it is added, which waits for the device.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self._added: list[tuple[Tensor, Callable[..., str], tuple[Any, ...]]] = []
        self._last: Tensor | None = None

    def add(self, tensor: Tensor, sentence: Callable[..., str], *facts: Any) -> None:
        """Keep a tensor's sum, and the message to raise if it is not finite.

        A tensor that was added last is not added again.

        Args:
            sentence: makes the message from ``facts``, which hold no tensors.
        """
        if tensor is self._last:
            return
        self._last = tensor
        wide = torch.float32 if tensor.dtype == torch.float16 else None
        self._added.append((tensor.sum(dtype=wide), sentence, facts))
        if self.at_once:
            self.require()

    def require(self) -> None:
        """Raise a NonFiniteError for the first added tensor that was not finite."""
        added, self._added = self._added, []
        if not added:
            return
        sums = torch.stack([total for total, _, _ in added]).tolist()
        for total, (_, sentence, facts) in zip(sums, added, strict=True):
            if not math.isfinite(total):
                raise NonFiniteError(sentence(*facts))
