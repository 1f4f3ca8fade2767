"""Estimates: a model's prediction at (x, t), and sums of several."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Final, Literal

import torch
from torch import Tensor

from composer._changed import changed
from composer._views import Views
from composer.arguments import finite
from composer.errors import shown
from composer.predictions import EPSILON, SAMPLE, Prediction
from composer.schedules import Schedule
from composer.transforms import Transform
from composer.words import short_repr


class Keep(Enum):
    """The value "unchanged" for arguments of ``replace`` that may be None."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
_FACTORS: Final = float, int, Tensor, numbers.Real  # the last is slow


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """A model's answer: a prediction at (x, t), and the noise and clean image that it implies.

    ``request.answer(prediction, variance, kind)`` makes one. ``+``, ``-``, ``*`` and ``/`` act on
    the prediction, in the model's own prediction space. The learned variance of a sum is the mean
    over the terms that have one, each counted once; ``replace(variance=...)`` sets another.

    Args:
        prediction: the output (B, C, H, W), of the type ``kind``.
        variance: the learned variance channels (B, C, H, W) in [-1, 1], or None.
        x, t: the image and time of the request.
        schedule, kind: the path and the prediction type of ``prediction``.
    """

    prediction: Tensor
    variance: Tensor | None
    x: Tensor
    t: float
    schedule: Schedule
    kind: Prediction
    # For a sum: the variances of its terms; ``variance`` is their mean.
    _variances: tuple[Tensor, ...] = field(default=(), repr=False)
    _views: Views | None = field(default=None, repr=False)

    __repr__ = short_repr

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
        variance: Tensor | Keep | None = KEEP,
        x: Tensor | None = None,
        t: float | None = None,
        kind: Prediction | None = None,
    ) -> Estimate:
        """A copy with the given fields changed; ``kind`` is the type of a new prediction. To reuse
        an estimate of an earlier step, give the request's ``x`` and ``t``."""
        kept = variance is KEEP
        return changed(
            self,
            prediction=self.prediction if prediction is None else prediction,
            variance=self.variance if kept else variance,
            x=self.x if x is None else x,
            t=self.t if t is None else t,
            kind=self.kind if kind is None else kind,
            _variances=self._variances if kept else (),
        )

    def rows(self, rows: Tensor) -> Estimate:
        """The estimate of the images ``rows``, integers (N,), in their order."""
        variance = None if self.variance is None else self.variance[rows]
        return self.replace(prediction=self.prediction[rows], variance=variance, x=self.x[rows])

    def with_x0(self, x0: Tensor) -> Estimate:
        """The estimate at the same x with the clean image ``x0``.

        At an end of the path, where not every prediction type determines x_0, its kind is SAMPLE.
        Its noise is zero where x has none.
        """
        alpha, sigma = self.schedule.at(self.t)
        if alpha == 0 or sigma == 0:
            return self.replace(prediction=x0, kind=SAMPLE)
        noise = (self.x - alpha * x0) / sigma
        return self.replace(prediction=self.kind.target(x0, noise, alpha, sigma))

    def with_noise(self, noise: Tensor) -> Estimate:
        """The estimate at the same x with the noise ``noise``.

        At an end of the path, where not every prediction type determines the noise, its kind is
        EPSILON. Its clean image is zero where x has no signal.
        """
        alpha, sigma = self.schedule.at(self.t)
        if alpha == 0 or sigma == 0:
            return self.replace(prediction=noise, kind=EPSILON)
        x0 = (self.x - sigma * noise) / alpha
        return self.replace(prediction=self.kind.target(x0, noise, alpha, sigma))

    def seen_back(self, view: Transform) -> Estimate:
        """The estimate carried from a view of the image back to the image.

        Its x is the same tensor object as the x of the request before ``seen_through(view)``.
        """
        return self.replace(
            prediction=view.inverse(self.prediction),
            variance=None if self.variance is None else view.inverse_variance(self.variance),
            x=view.inverse(self.x) if self._views is None else self._views.original(self.x, view),
        )

    def filtered(self, part: Callable[[Tensor], Tensor]) -> Estimate:
        """The estimate with a linear filter applied to its prediction."""
        return self.replace(prediction=part(self.prediction))

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name; noise and x0 once they have been computed."""
        found = {"prediction": self.prediction, "x": self.x}
        if self.variance is not None:
            found["variance"] = self.variance
        for name in ("noise", "x0"):
            if name in self.__dict__:
                found[name] = self.__dict__[name]
        return found

    def with_fixed_variance(self) -> Estimate:
        """The estimate, whose learned variance counts once in further sums, even if it is a sum."""
        return self.replace(variance=self.variance) if self._variances else self

    def __add__(self, other: Estimate) -> Estimate:
        return self._summed(other, self.prediction + self._alike(other).prediction)

    def __radd__(self, other: int) -> Estimate:
        if other != 0:  # where sum() begins
            raise TypeError(f"an estimate can be added to an Estimate, got {shown(other)}.")
        return self

    def __sub__(self, other: Estimate) -> Estimate:
        return self._summed(other, self.prediction - self._alike(other).prediction)

    def __mul__(self, factor: float | Tensor) -> Estimate:
        return self.replace(prediction=self.prediction * _factor(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Tensor) -> Estimate:
        return self.replace(prediction=self.prediction / _factor(divisor))

    def __neg__(self) -> Estimate:
        return self.replace(prediction=-self.prediction)

    def lerp(self, other: Estimate, weight: float | Tensor) -> Estimate:
        """self + weight * (other - self), with this one's learned variance.

        Args:
            weight: a number, also below 0 or above 1, or a tensor that broadcasts to (B, C, H, W).
        """
        start, end, share = self.prediction, self._alike(other).prediction, _factor(weight)
        if isinstance(share, Tensor) or start.dtype != end.dtype:
            start, end, share = _of_one_dtype(start, end, share)
        return self.with_fixed_variance().replace(prediction=torch.lerp(start, end, share))

    def _summed(self, other: Estimate, prediction: Tensor) -> Estimate:
        terms = _distinct_variances((self, other))
        several = terms if len(terms) > 1 else ()
        return changed(self, prediction=prediction, variance=_mean(terms), _variances=several)

    def _alike(self, other: Estimate) -> Estimate:
        """``other``, if it can be combined with this one."""
        if not isinstance(other, Estimate):
            raise TypeError(
                f"an estimate can be combined with an Estimate, got {type(other).__name__}. Use "
                "with_x0, with_noise or replace(prediction=...)."
            )
        if other.t != self.t or other.prediction.shape != self.prediction.shape:
            raise ValueError(
                "estimates must have the same shape and time to be combined, got "
                f"{tuple(self.prediction.shape)} at t = {self.t:g} and "
                f"{tuple(other.prediction.shape)} at t = {other.t:g}."
            )
        if other.x is not self.x:
            raise ValueError(
                "estimates must have the same x to be combined, got two different images. Carry an "
                "estimate of request.seen_through(view) back with estimate.seen_back(view), or for "
                "a copy of the same image call estimate.replace(x=request.x)."
            )
        if other.kind is not self.kind and other.kind != self.kind:
            raise ValueError(
                f"estimates must have the same kind to be combined, got {self.kind.name!r} and "
                f"{other.kind.name!r}. Put a plugin that works on x_0 or noise into all branches "
                "that are combined, or around them."
            )
        return other


def combine(
    weights: Sequence[float | Tensor],
    estimates: Sequence[Estimate],
    variance: Estimate | Literal["mean"] = "mean",
) -> Estimate:
    """sum_i w_i estimate_i, at the first one's x.

    This obeys the law if the weights sum to one, or the estimates are parts that sum to the
    identity.

    Args:
        weights: a number for each estimate, or a tensor that broadcasts to (B, C, H, W).
        estimates: at the same x and t; carry those of views back with ``seen_back``.
        variance: the estimate whose learned variance to keep, or "mean" of all, each counted once.

    Raises:
        ValueError: the numbers of weights and estimates differ, or the estimates' images do.
    """
    if not estimates or len(weights) != len(estimates):
        raise ValueError(
            "combine: weights must be a number for each estimate, at least one, got "
            f"{len(weights)} for {len(estimates)}."
        )
    terms = zip(weights, estimates, strict=True)
    weight, first = next(terms)
    prediction = first.prediction if _is_one(weight) else first.prediction * weight
    for weight, estimate in terms:
        part = first._alike(estimate).prediction
        if isinstance(_factor(weight), Tensor):
            prediction = prediction + weight * part
        else:
            prediction = torch.add(prediction, part, alpha=float(weight))
    kept = estimates if variance == "mean" else (variance,)
    return first.replace(prediction=prediction, variance=_mean(_distinct_variances(kept)))


def _of_one_dtype(
    start: Tensor, end: Tensor, share: float | Tensor
) -> tuple[Tensor, Tensor, float | Tensor]:
    """The same in the type that their sum has; torch.lerp mixes no types."""
    dtype = torch.result_type(start, end)
    if isinstance(share, Tensor):
        dtype = torch.promote_types(dtype, torch.result_type(start, share))
        share = share.to(dtype)
    return start.to(dtype), end.to(dtype), share


def _is_one(weight: float | Tensor) -> bool:
    return not isinstance(_factor(weight), Tensor) and bool(weight == 1)


def _factor(value: float | Tensor) -> float | Tensor:
    if not isinstance(value, _FACTORS):
        raise TypeError(
            f"the factor of an estimate must be a number or a tensor, got {shown(value)}."
        )
    return value if isinstance(value, Tensor) else finite(value, "the factor of an estimate")


def _distinct_variances(estimates: Iterable[Estimate]) -> tuple[Tensor, ...]:
    """The learned variances of estimates, or of the terms of sums, each once."""
    found: dict[int, Tensor] = {}
    for estimate in estimates:
        for variance in estimate._variances or (estimate.variance,):
            if variance is not None:
                found[id(variance)] = variance
    return tuple(found.values())


def _mean(tensors: tuple[Tensor, ...]) -> Tensor | None:
    if len(tensors) < 2:
        return tensors[0] if tensors else None
    return torch.stack(tensors).mean(0)
