"""Requests that plugins send to a model, or to each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor

from composer.estimates import KEEP, Estimate, Keep, Views, combine
from composer.markers import answers
from composer.predictions import Prediction
from composer.schedules import Schedule
from composer.transforms import Transform
from composer.words import short_repr

__all__ = ["UNCONDITIONAL", "Estimate", "Request", "combine"]


class _Unconditional:
    """The type of :data:`UNCONDITIONAL`; a singleton, also after copying and pickling."""

    def __repr__(self) -> str:
        return "UNCONDITIONAL"

    def __reduce__(self) -> str:
        return "UNCONDITIONAL"


UNCONDITIONAL: Final = _Unconditional()
"""The condition "no condition"; None means "not yet set"."""


@dataclass(frozen=True, eq=False, repr=False)
class Request:
    """A request to the model, or to the plugins between here and the model.

    Args:
        x: the noised image (B, C, H, W).
        t: its time on the backend's schedule.
        condition: a hashable condition, UNCONDITIONAL, or None for unspecified.
        step: 0-based number of the sampling step.
        beside: further tensors for the model: (B, ., H, W) with the image's layout, such as a
            low-resolution image, on which views act too; or (B,), one number per image, which
            views leave unchanged.
        through: plugins that answer this request before the next ones of the stack.
        schedule: the backend's schedule; the loop fills it in.
        model: the name of one of the backend's ``models``; None for the backend's own model.
    """

    x: Tensor
    t: float
    condition: Any = None
    step: int = 0
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    through: tuple[Any, ...] = ()
    schedule: Schedule | None = None
    model: str | None = None
    _views: Views = field(default_factory=Views, repr=False)

    __repr__ = short_repr

    @property
    def noise_level(self) -> float:
        """sigma / (alpha + sigma) at t, from 1 (noise) to 0 (image) on every schedule."""
        if self.schedule is None:
            raise ValueError("this Request has no schedule; pass schedule=backend.schedule")
        return self.schedule.noise_level(self.t)

    def replace(
        self,
        *,
        x: Tensor | None = None,
        t: float | None = None,
        condition: Hashable = KEEP,
        through: tuple[Any, ...] | None = None,
        model: str | Keep | None = KEEP,
    ) -> Request:
        """A copy with the given fields changed; condition None makes it unspecified, and model
        None means the backend's own."""
        return Request(
            self.x if x is None else x,
            self.t if t is None else t,
            self.condition if condition is KEEP else condition,
            self.step,
            self.beside,
            self.through if through is None else through,
            self.schedule,
            self.model if model is KEEP else model,
            self._views,
        )

    def answer(self, prediction: Tensor, variance: Tensor | None, kind: Prediction) -> Estimate:
        """Make the estimate that answers this request, in a model or a replacement for one.

        Args:
            prediction: (B, C, H, W), of the type ``kind``.
            variance: the learned variance channels (B, C, H, W) in [-1, 1], or None.
        """
        if self.schedule is None:
            raise ValueError("this Request has no schedule; pass schedule=backend.schedule")
        views = self._views
        return Estimate(prediction, variance, self.x, self.t, self.schedule, kind, (), views)

    @property
    def identity(self) -> Hashable:
        """A key that is equal for equal requests; tensors are equal only as one object."""
        beside = tuple((name, id(value)) for name, value in self.beside.items())
        asked = self.t, type(self.condition), self.condition, self.step, self.model
        return id(self.x), *asked, beside, id(self.schedule), id(self._views)

    def fill(self, condition: Any) -> Request:
        """Set the condition, unless this request already has one.

        A plugin may stand in place of a condition. It then answers this request, even if the
        request has a condition, and sets the conditions of its own requests.
        """
        if answers(condition, "noise_estimate"):
            return self.replace(through=(condition, *self.through))
        return self if self.condition is not None else self.replace(condition=condition)

    def seen_through(self, view: Transform) -> Request:
        """The same request for the image seen through a view."""
        beside = {
            name: self._views.seen(value, view) if value.ndim == 4 else value
            for name, value in self.beside.items()
        }
        return Request(
            self._views.seen(self.x, view),
            self.t,
            self.condition,
            self.step,
            beside,
            self.through,
            self.schedule,
            self.model,
            self._views,
        )

    def forget_views(self) -> None:
        """Release the cached views of this request and of all requests derived from it."""
        self._views.clear()
