"""What plugins that steer by the gradient of a loss have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Self

from torch import Tensor

from composer import Estimate, Plugin, Stack, Transform, get_transform, hookimpl
from composer.arguments import interval
from composer.authoring import Loss, check_loss, check_view, differentiable_of, resized


class ByLoss(Plugin):
    """A dataclass that steers by a loss(V x) of images x, V a view, within noise levels."""

    obeys_law = False

    loss: Loss
    view: str | Transform
    interval: Sequence[float]

    def __post_init__(self) -> None:
        interval(self.interval, f"{type(self).__name__}: interval")
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


def require_differentiable(stack: Stack, owner: str) -> None:
    """Raise a ValueError unless gradients flow through the network."""
    if not differentiable_of(stack.backend):
        raise ValueError(
            f"{owner}: backend must be differentiable, got {type(stack.backend).__name__}, which "
            "does not declare it. Use Steer, which needs no gradient of the network."
        )


def untracked(estimate: Estimate, x: Tensor) -> Estimate:
    """The estimate that answers ``request.tracked()``, at the x of the request and without its
    graph."""
    variance = None if estimate.variance is None else estimate.variance.detach()
    return estimate.replace(prediction=estimate.prediction.detach(), variance=variance, x=x)
