"""Noisy and nonlinear measurements y = A(x) + noise, for DiffPIR and DAPS."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from composer import Backend, Request
from composer.authoring import image_shape_of, once, probes
from composer.errors import said, shown
from composer.schedules import Schedule
from composer_plugins.editing.operators import Operator

Measure = Callable[[Tensor], Tensor]
CONJUGATE_STEPS = 10
"""Steps of conjugate gradients. They suffice exactly for operators with up to 10 different singular
values; those of this package have two."""


def measure_of(operator: Operator | Measure) -> Measure:
    """A: an operator's ``apply``, or the function itself."""
    measure: Any = getattr(operator, "apply", operator)
    return measure  # type: ignore[no-any-return]


def require_measure(operator: object, owner: str) -> None:
    """Raise a TypeError unless an operator is a function of images, or has one as ``apply``."""
    measure = getattr(operator, "apply", operator)
    if not callable(measure) or isinstance(operator, type):
        raise TypeError(
            f"{owner}: operator must be a function of images or have apply(x), got "
            f"{shown(operator)}. Use for example KnownPixels(mask)."
        )


def check_measurement(
    operator: Operator | Measure, y: Tensor, backend: Backend, owner: str
) -> None:
    """Raise a ValueError unless y (B, ...) has the shape that A gives of the backend's images."""
    try:
        needed = once(
            lambda: tuple(measure_of(operator)(probes(backend)[:1]).shape[1:]),
            *("measure", operator, image_shape_of(backend), backend.dtype, backend.device),
        )
    except Exception as error:  # a third party's function may raise anything
        raise ValueError(
            f"{owner}: {operator!r} failed on images of {image_shape_of(backend)} ({said(error)}). "
            "Correct it, or take another."
        ) from error
    if tuple(y.shape[1:]) != needed:
        raise ValueError(
            f"{owner}: measurement must have the shape {needed}, as {operator!r} measures, got "
            f"{tuple(y.shape[1:])}. Measure an image of {image_shape_of(backend)}."
        )


def of_rows(y: Tensor, request: Request) -> Tensor:
    """Measurements for the images of a request, from one for all or one per seed."""
    return y if len(y) == 1 else y[list(request.origin or range(len(request.x)))]


def spread_at(schedule: Schedule, t: float, data: float) -> float:
    """The standard deviation r of x_0 given x that N(., data^2) would have: with
    s = sigma / alpha, 1 / r^2 = 1 / s^2 + 1 / data^2."""
    alpha, sigma = schedule.at(t)
    width = math.hypot(alpha, sigma / data)
    return sigma / width if width else math.inf


def explained(x0: Tensor, y: Tensor, measure: Measure, ratio: float, rounds: int) -> Tensor:
    """The image x near x0 that explains y: the minimum of |y - A(x)|^2 + ratio |x - x0|^2.

    Gauss and Newton's method; one round is exact for a linear A. Each solves

        (J^T J + ratio) d = J^T (y - A(x)) + ratio (x0 - x)

    by conjugate gradients, with J the derivative of A at x; nothing is read from the device.

    Args:
        x0: (B, C, H, W).
        y: (B, ...) or (1, ...).
        ratio: at least 0.
        rounds: of the method, at least 1.
    """
    x = x0
    for _ in range(rounds):
        seen, back = torch.func.vjp(measure, x)[:2]
        along = _derivative(measure, x, seen)

        def curved(d: Tensor, back: Any = back, along: Measure = along) -> Tensor:
            return back(along(d))[0] + ratio * d  # type: ignore[no-any-return]

        x = x + _solved(curved, back(y.expand_as(seen) - seen)[0] + ratio * (x0 - x))
    return x


def _derivative(measure: Measure, x: Tensor, seen: Tensor) -> Measure:
    """d -> J d: the transpose of v -> J^T v, which unlike forward mode every operation has."""
    _, across = torch.func.vjp(lambda v: torch.func.vjp(measure, x)[1](v)[0], seen)[:2]
    return lambda d: across(d)[0]


def _solved(curved: Measure, right: Tensor) -> Tensor:
    """d with curved(d) = right, image by image, by conjugate gradients."""
    d, left = torch.zeros_like(right), right
    way, square = left, _dot(left, left)
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(CONJUGATE_STEPS):
        bent = curved(way)
        size = square / _dot(way, bent).clamp_min(tiny)
        d, left = d + size * way, left - size * bent
        before, square = square, _dot(left, left)
        # Stop an image where rounding is all that is left: further steps would amplify it.
        kept = square > torch.finfo(right.dtype).eps ** 2 * _dot(right, right)
        left = torch.where(kept, left, torch.zeros_like(left))
        way = left + torch.where(kept, square / before.clamp_min(tiny), 0) * way
        way = torch.where(kept, way, torch.zeros_like(way))
        square = torch.where(kept, square, torch.zeros_like(square))
    return d


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, 1, 1, 1)."""
    return (a * b).flatten(1).sum(1)[:, None, None, None]
