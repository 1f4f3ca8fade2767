"""Detect NaN and Inf in a run without a wait for the device at each step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from composer.errors import NonFiniteError


class Finiteness:
    """Sums of a run's images, kept on the device and read once at the end.

    To read a number back, the program must wait for the device. The sum of finite numbers is finite
    unless they are near the largest of their type, and it is the cheapest test.

    Args:
        at_once: read the sums when they are added, which waits for the device.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self._added: list[tuple[Tensor, Callable[[int], str]]] = []
        self._last: Tensor | None = None

    def add(self, images: Tensor, sentence: Callable[[int], str]) -> None:
        """Keep the sum of each image, and the message to raise if it is not finite.

        A tensor that was added last is not added again.

        Args:
            images: (N, C, H, W).
            sentence: makes the message from the index of an image; it holds no tensors.
        """
        if images is self._last:
            return
        self._last = images
        wide = torch.float32 if images.dtype == torch.float16 else None
        self._added.append((images.sum((1, 2, 3), dtype=wide), sentence))
        if self.at_once:
            self.require()

    def require(self) -> None:
        """Raise a NonFiniteError for the first added image that was not finite."""
        added, self._added = self._added, []
        if not added:
            return
        sums = torch.cat([totals for totals, _ in added]).tolist()
        if all(map(math.isfinite, sums)):
            return
        each = iter(sums)
        for totals, sentence in added:
            for image in range(len(totals)):
                if not math.isfinite(next(each)):
                    raise NonFiniteError(sentence(image))
