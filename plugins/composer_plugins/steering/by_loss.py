"""What plugins that steer by the gradient of a loss have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Self

from composer import Plugin, Stack, Transform, get_transform, hookimpl
from composer.arguments import finite, interval
from composer.authoring import Loss, check_loss, check_view, resized


class ByLoss(Plugin):
    """A dataclass that steers by strength * loss(V x), V a view, within noise levels."""

    obeys_law = False
    needs_pixels = True

    loss: Loss
    strength: float
    view: str | Transform
    interval: Sequence[float]

    def __post_init__(self) -> None:
        owner = type(self).__name__
        finite(self.strength, f"{owner}: strength")
        interval(self.interval, f"{owner}: interval")
        _ = self._view  # raises for an unknown view

    @cached_property
    def _view(self) -> Transform:
        return get_transform(self.view)

    def resized(self, height: int, width: int) -> Self:
        size = height, width
        loss, view = resized(self.loss, *size), resized(self.view, *size)
        return replace(self, loss=loss, view=view)  # type: ignore[type-var]

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_loss(self.loss, stack.backend, type(self).__name__)
        check_view(self._view, stack.backend, type(self).__name__)
