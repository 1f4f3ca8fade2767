"""Several densities of one image: one for each condition, or each view and its condition.

A condition i has at each noise level the density q_i of its noised images, whose score the model
estimates. Over a step from t to the cleaner s, Bayes' rule for the pair (x_t, x_s) says

    log q_i(x_s) - log q_i(x_t) = log q_i(x_s | x_t) - log q(x_t | x_s),

whose last term is the same for all conditions. :func:`reverse_of` gives q_i(x_s | x_t), a Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

from torch import Tensor

from composer import UNCONDITIONAL, Plugin, Request, Stack, Transform, get_transform, hookimpl
from composer.authoring import check_view, declared, resized
from composer.errors import owned, shown
from composer.schedules import Schedule, ancestral_variance

Readings = (
    Sequence[Any] | Mapping[str, Any] | Mapping[Transform, Any] | Mapping[str | Transform, Any]
)
"""Conditions of the image; or {view: condition}, transforms by name or as Transform objects."""


class Reverse(NamedTuple):
    """q_i(x_s | x_t) = N(of_x0 * x0_i + of_x * x_t, variance I), x0_i the clean image estimated."""

    of_x0: float
    of_x: float
    variance: float


def reverse_of(schedule: Schedule, t: float, s: float, data_std: float) -> Reverse:
    """The reverse transition from t to the cleaner s; exact for data ~ N(mu, data_std^2 I).

    With r = alpha_t / alpha_s and beta = sigma_t^2 - r^2 sigma_s^2 its variance is
    beta (sigma_s^2 + alpha_s^2 S^2) / (sigma_t^2 + alpha_t^2 S^2). S = 0 is DDPM's, S -> infinity
    that of the Euler-Maruyama step, beta / r^2.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.at(t), schedule.at(s)
    beta = ancestral_variance(alpha_t, sigma_t, alpha_s, sigma_s)
    wide_t = sigma_t**2 + (alpha_t * data_std) ** 2
    wide_s = sigma_s**2 + (alpha_s * data_std) ** 2
    return Reverse(
        alpha_s * beta / sigma_t**2,
        (alpha_t / alpha_s) * (sigma_s / sigma_t) ** 2,
        beta * wide_s / wide_t,
    )


def parsed(readings: Any, owner: str) -> tuple[tuple[Transform, Any], ...]:
    """(view, condition) pairs.

    Raises:
        TypeError: they are not a list or dict of readings.
        UnknownNameError: a view is not known.
    """
    named = isinstance(readings, Mapping)
    if not (named or isinstance(readings, list | tuple)) or not readings:
        raise TypeError(
            f"{owner}: readings must be a list of conditions such as [3, 8], or a dict such as "
            f"{{'identity': 6, 'rotate_180': 9}}, got {shown(readings)}."
        )
    pairs: Iterable[tuple[Any, Any]]
    pairs = readings.items() if named else (("identity", condition) for condition in readings)
    with owned(owner):
        return tuple((get_transform(view), condition) for view, condition in pairs)


def asked(request: Request, view: Transform, condition: Any) -> Request:
    """The request for one reading; UNCONDITIONAL also replaces the condition of the call."""
    seen = request.seen_through(view)
    if condition is UNCONDITIONAL:
        return seen.replace(condition=UNCONDITIONAL)
    return seen.fill(condition)


def squared(x: Tensor) -> Tensor:
    """|x|^2 of images (B, ..., C, H, W): (B, ...)."""
    return x.square().sum((-3, -2, -1))


class OverReadings(Plugin):
    """A dataclass with a field ``readings``, one density each."""

    readings: Readings

    @property
    def pairs(self) -> tuple[tuple[Transform, Any], ...]:
        """(view, condition) of each reading, views looked up."""
        return parsed(self.readings, type(self).__name__)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The views; none of a list of conditions."""
        named = isinstance(self.readings, Mapping)
        return tuple(view for view, _ in self.pairs) if named else ()

    @property
    def needs_pixels(self) -> bool:
        return bool(self.transforms)

    def resized(self, height: int, width: int) -> Self:
        size, readings = (height, width), self.readings
        changed: Readings
        if isinstance(readings, Mapping):
            changed = {resized(v, *size): resized(c, *size) for v, c in readings.items()}
        else:
            changed = [resized(condition, *size) for condition in readings]
        return replace(self, readings=changed)  # type: ignore[type-var]

    @hookimpl
    def check(self, stack: Stack) -> None:
        owner = type(self).__name__
        for view in self.transforms:
            check_view(view, stack.backend, owner)
        if walkers := [p for p in stack.plugins if declared(p, "walks")]:
            raise ValueError(
                f"{owner}: it cannot be combined with {type(walkers[0]).__name__}, whose walks its "
                "densities do not follow. Remove one of them."
            )
