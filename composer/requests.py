"""What plugins and models say to each other: a request for a prediction, and its answer."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property, reduce
from typing import Any, Final, Literal

import torch
from torch import Tensor

from composer.markers import answers
from composer.predictions import EPSILON, SAMPLE, Prediction
from composer.schedules import Schedule
from composer.transforms import Transform


class _Unconditional:
    """The type of :data:`UNCONDITIONAL`; a singleton, also after copying and pickling."""

    def __repr__(self) -> str:
        return "UNCONDITIONAL"

    def __reduce__(self) -> str:
        return "UNCONDITIONAL"


UNCONDITIONAL: Final = _Unconditional()
"""Ask the model for no condition at all, as opposed to None: "not yet decided"."""


class _Keep(Enum):
    """What a field that may become None is given for "as it was"."""

    KEEP = "keep"


_KEEP: Final = _Keep.KEEP


@dataclass(frozen=True, eq=False)
class Request:
    """A question to the model, or to the plugins between here and the model.

    Args:
        x: the noised image (B, C, H, W).
        t: its time on the backend's schedule.
        condition: a hashable condition, UNCONDITIONAL, or None for unspecified.
        step: 0-based number of the sampling step.
        beside: further tensors for the model: (B, ., H, W) laid out like the image, such as a
            low-resolution conditioning, on which views act too; (B,), a number an image, on which
            they do not.
        through: plugins that answer this request before those further in do.
        schedule: the backend's schedule; the loop fills it in.
        model: which of the backend's ``models`` to ask, by name; None for the backend's own.
    """

    x: Tensor
    t: float
    condition: Any = None
    step: int = 0
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    through: tuple[Any, ...] = ()
    schedule: Schedule | None = None
    model: str | None = None
    # Views of tensors already taken in this round, shared by every request derived from one
    # another: two plugins that look through the same view then send the same object.
    _views: dict[tuple[int, Transform], tuple[Tensor, Tensor]] = field(
        default_factory=dict, repr=False
    )

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
        condition: Hashable = _KEEP,
        through: tuple[Any, ...] | None = None,
        model: str | _Keep | None = _KEEP,
    ) -> Request:
        """A copy with the fields given changed; condition None makes it unspecified, and model
        None asks the backend's own."""
        return replace(
            self,
            x=self.x if x is None else x,
            t=self.t if t is None else t,
            condition=self.condition if condition is _KEEP else condition,
            through=self.through if through is None else through,
            model=self.model if model is _KEEP else model,
        )

    def fill(self, condition: Any) -> Request:
        """Ask for ``condition``, unless this request already says what it asks for.

        A plugin may stand where a condition does: it then answers this request, whatever
        the condition, and decides the conditions of what it asks in turn.
        """
        if answers(condition, "noise_estimate"):
            return self.replace(through=(condition, *self.through))
        return self if self.condition is not None else self.replace(condition=condition)

    def seen_through(self, view: Transform) -> Request:
        """The same question about the image seen through a view."""
        return replace(
            self,
            x=self._seen(self.x, view),
            beside={
                name: self._seen(value, view) if value.ndim == 4 else value
                for name, value in self.beside.items()
            },
        )

    def _seen(self, tensor: Tensor, view: Transform) -> Tensor:
        key = (id(tensor), view)
        if key not in self._views:
            self._views[key] = (tensor, view(tensor))  # the key's tensor is kept alive: ids recur
        return self._views[key][1]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A model's answer: a prediction at (x, t), and what it implies of noise and clean image.

    ``+``, ``-``, ``*`` and ``/`` act on the prediction alone, in the model's own prediction space;
    the other fields are the left operand's.

    Args:
        prediction: the output (B, C, H, W), of the type ``kind``.
        variance: the learned variance channels (B, C, H, W) in [-1, 1], or None.
        x, t: where the model was asked.
        schedule, kind: the path and the prediction type, with which to read ``prediction``.
    """

    prediction: Tensor
    variance: Tensor | None
    x: Tensor
    t: float
    schedule: Schedule
    kind: Prediction

    @cached_property
    def noise(self) -> Tensor:
        """The noise in x that the prediction implies."""
        return self.kind.noise(self.prediction, self.x, *self.schedule.at(self.t))

    @cached_property
    def x0(self) -> Tensor:
        """The clean image that the prediction implies: the one-step denoising of x."""
        return self.kind.x0(self.prediction, self.x, *self.schedule.at(self.t))

    def replace(
        self,
        *,
        prediction: Tensor | None = None,
        variance: Tensor | _Keep | None = _KEEP,
        x: Tensor | None = None,
        t: float | None = None,
        kind: Prediction | None = None,
    ) -> Estimate:
        """A copy with the fields given changed; ``kind`` says what a new prediction means. A
        prediction kept from an earlier step is used again at the request's ``x`` and ``t``."""
        return replace(
            self,
            prediction=self.prediction if prediction is None else prediction,
            variance=self.variance if variance is _KEEP else variance,
            x=self.x if x is None else x,
            t=self.t if t is None else t,
            kind=self.kind if kind is None else kind,
        )

    def rows(self, rows: Tensor) -> Estimate:
        """The estimate of the images ``rows``, integers (N,), in their order."""
        variance = None if self.variance is None else self.variance[rows]
        return self.replace(prediction=self.prediction[rows], variance=variance, x=self.x[rows])

    def with_x0(self, x0: Tensor) -> Estimate:
        """The estimate at the same x whose clean image is ``x0``; at an end of the path, where
        not every prediction can say so, a sample. The noise of x that has none is zero."""
        alpha, sigma = self.schedule.at(self.t)
        if alpha == 0 or sigma == 0:
            return self.replace(prediction=x0, kind=SAMPLE)
        noise = (self.x - alpha * x0) / sigma
        return self.replace(prediction=self.kind.target(x0, noise, alpha, sigma))

    def with_noise(self, noise: Tensor) -> Estimate:
        """The estimate at the same x whose noise is ``noise``; at an end of the path, where not
        every prediction can say so, an epsilon. The image in x that has no signal is zero."""
        alpha, sigma = self.schedule.at(self.t)
        if alpha == 0 or sigma == 0:
            return self.replace(prediction=noise, kind=EPSILON)
        x0 = (self.x - sigma * noise) / alpha
        return self.replace(prediction=self.kind.target(x0, noise, alpha, sigma))

    def seen_back(self, view: Transform) -> Estimate:
        """The estimate carried from a view of the image back to the image itself."""
        return self.replace(
            prediction=view.inverse(self.prediction),
            variance=None if self.variance is None else view.inverse_variance(self.variance),
            x=view.inverse(self.x),
        )

    def filtered(self, part: Callable[[Tensor], Tensor]) -> Estimate:
        """The estimate with a linear filter applied to its prediction."""
        return self.replace(prediction=part(self.prediction))

    def __add__(self, other: Estimate) -> Estimate:
        return self.replace(prediction=self.prediction + self._alike(other).prediction)

    def __radd__(self, other: int) -> Estimate:
        if other != 0:  # where sum() begins
            raise TypeError(f"an estimate and {other!r:.50} cannot be added")
        return self

    def __sub__(self, other: Estimate) -> Estimate:
        return self.replace(prediction=self.prediction - self._alike(other).prediction)

    def __mul__(self, factor: float | Tensor) -> Estimate:
        return self.replace(prediction=self.prediction * _factor(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Tensor) -> Estimate:
        return self.replace(prediction=self.prediction / _factor(divisor))

    def __neg__(self) -> Estimate:
        return self.replace(prediction=-self.prediction)

    def _alike(self, other: Estimate) -> Estimate:
        if not isinstance(other, Estimate):
            raise TypeError(
                f"an estimate and a {type(other).__name__} cannot be added; use with_x0, "
                "with_noise or replace(prediction=...)"
            )
        if (other.t, other.prediction.shape) != (self.t, self.prediction.shape):
            raise ValueError(
                f"an estimate of {tuple(self.prediction.shape)} at t = {self.t:g} was combined "
                f"with one of {tuple(other.prediction.shape)} at t = {other.t:g}"
            )
        # The same tensor, unless views rounded it on the way there and back.
        if other.x is not self.x and not torch.allclose(other.x, self.x, atol=1e-2):
            raise ValueError(
                "estimates of two different images were combined; carry what was asked of "
                "request.seen_through(view) back by estimate.seen_back(view)"
            )
        if other.kind != self.kind:
            raise ValueError(
                f"an estimate of the kind {self.kind.name!r} was combined with one of the kind "
                f"{other.kind.name!r}; a plugin that works on x_0 or noise must stand in all "
                "branches that are combined, or around them"
            )
        return other


def _factor(value: float | Tensor) -> float | Tensor:
    if not isinstance(value, Tensor | numbers.Real):
        raise TypeError(
            f"an estimate is multiplied or divided by a number or a tensor, not by {value!r:.50}"
        )
    return value


def combine(
    weights: Sequence[float | Tensor],
    estimates: Sequence[Estimate],
    variance: Estimate | Literal["mean"] = "mean",
) -> Estimate:
    """sum_i w_i estimate_i, at the first one's x.

    Lawful where the weights sum to one, or the estimates are parts that sum to the identity.

    Args:
        weights: a number for each estimate, or a tensor that broadcasts to (B, C, H, W).
        estimates: at the same x and t; those of views carried back by ``seen_back``.
        variance: the estimate whose learned variance to keep, or "mean" of all.

    Raises:
        ValueError: another number of weights, or estimates of different images.
    """
    summed = reduce(operator.add, (w * e for w, e in zip(weights, estimates, strict=True)))
    if isinstance(variance, Estimate):
        return summed.replace(variance=variance.variance)
    known = [e.variance for e in estimates if e.variance is not None]
    return summed.replace(variance=torch.stack(known).mean(0) if known else None)
