"""Probes of views, decompositions and nested plugins, run when a Sampler is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from composer.driver import resolve
from composer.errors import shown
from composer.plugin import is_nested
from composer.predictions import Prediction
from composer.protocols import Stack
from composer.requests import Estimate, Request
from composer.transforms import Transform

TOLERANCE = 1e-8
"""Of the float64 probes of views and decompositions."""


def require_one_kind(stack: Stack, conditions: Sequence[Any], owner: str) -> None:
    """Refuse plugins in place of conditions whose estimates cannot be added to the others'."""
    kinds = {kind_of(c, stack) if is_nested(c) else stack.backend.prediction for c in conditions}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.name for kind in kinds))
        raise ValueError(
            f"{owner} would combine estimates of the kinds {names}; a plugin that works on x_0 or "
            "noise must stand in all branches, or around them"
        )


def kind_of(plugin: Any, stack: Stack) -> Prediction:
    """The kind of estimate that a plugin returns over a model that predicts nothing but zeros."""
    backend = stack.backend

    def zeros(requests: list[Request]) -> list[Estimate]:
        return [r.answer(torch.zeros_like(r.x), None, backend.prediction) for r in requests]

    # Half-way, where neither the image nor the noise is lost.
    time = stack.times[(len(stack.times) - 1) // 2]
    x = torch.ones(1, *backend.shape, dtype=backend.dtype, device=backend.device)
    request = Request(x, time, schedule=backend.schedule)
    return resolve(request, [plugin.noise_estimate], zeros).kind


def check_view(view: Transform, shape: tuple[int, int, int], owner: str) -> None:
    """Refuse a view that is not orthogonal on images of ``shape`` (C, H, W).

    For a linear Q, |Qx|^2 - |x|^2 = x^T (Q^T Q - I) x is a polynomial in x; if it vanishes at a
    random x it vanishes everywhere, with probability one. In float64 a single misplaced pixel of
    a 256x256 image stands a million times above rounding.

    Raises:
        TypeError: no Transform.
        ValueError: a size it does not accept, a map that is not linear and orthogonal, or one of
            variances that is not of its squared entries.
    """
    if not isinstance(view, Transform):
        raise TypeError(
            f"{owner}: {shown(view)} is no Transform; give a name such as 'flip' or a "
            f"Transform object"
        )
    _, height, width = shape
    if not view.accepts(height, width):
        raise ValueError(f"{owner}: {view!r} accepts {view.sizes}, not {height}x{width}")
    x, y = probes(shape)
    try:
        trouble = (
            not_linear(view, x, y)
            or not_by_image(view, x)
            or _not_orthogonal(view, x)
            or not_pure(view, x)
            or not_pure(view.inverse, x)
            or _not_in_float32(view, x)
        )
        signed = "" if trouble else _not_of_variances(view, x)
    except Exception as error:
        raise ValueError(
            f"{owner}: {view!r} failed on a {height}x{width} image: {error}"
        ) from error
    if trouble:
        raise ValueError(
            f"{owner}: {view!r} is not orthogonal ({trouble}); the model would see noise it was "
            "not trained on, so use a permutation, rotation or sign change of pixels"
        )
    if signed:
        raise ValueError(
            f"{owner}: {view!r} {signed}; override view_variance and inverse_variance by the "
            "squares of its entries"
        )


def probes(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Two random batches (2, C, H, W) in float64."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((2, 2, *shape), generator=generator, dtype=torch.float64)
    return x, y


def not_linear(view: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> str:
    gap = (view(2 * x - 3 * y) - (2 * view(x.clone()) - 3 * view(y.clone()))).abs().max().item()
    return "" if gap < TOLERANCE else f"f(2x - 3y) is not 2 f(x) - 3 f(y), off by {gap:.2g}"


def not_by_image(view: Callable[[Tensor], Tensor], x: Tensor) -> str:
    gap = (view(x.clone())[:1] - view(x[:1].clone())).abs().max().item()
    return "" if gap < TOLERANCE else "an image of a batch depends on the others"


def _not_orthogonal(view: Transform, x: Tensor) -> str:
    seen = view(x.clone())
    if seen.shape != x.shape:
        return f"it changes the shape {tuple(x.shape)} to {tuple(seen.shape)}"
    stretch = (seen.norm() / x.norm() - 1).abs().item()
    if not stretch < 1e-10:
        return f"it changes lengths by {stretch:.2g}"
    gap = (view.inverse(seen) - x).abs().max().item()
    return "" if gap < TOLERANCE else f"inverse(f(x)) is not x, off by {gap:.2g}"


def _not_in_float32(view: Transform, x: Tensor) -> str:
    """Most models work in it, and the other probes do not."""
    seen = view(x.float())
    if seen.dtype != torch.float32:
        return f"it makes {seen.dtype} of float32"
    gap = (seen.double() - view(x.clone())).abs().max().item()
    return "" if gap < 1e-3 else f"in float32 it is another map, off by {gap:.2g}"


def _not_of_variances(view: Transform, x: Tensor) -> str:
    """Rows and columns of squared entries sum to one."""
    ones = torch.ones_like(x)
    maps = view.view_variance, view.inverse_variance
    gap = max((carried(ones.clone()) - ones).abs().max().item() for carried in maps)
    return "" if gap < TOLERANCE else f"does not keep variances of 1 (off by {gap:.2g})"


def not_pure(view: Callable[[Tensor], Tensor], x: Tensor) -> str:
    given = x.clone()
    view(given)
    return "" if torch.equal(given, x) else "it writes into its argument"


def check_parts(
    parts: Sequence[Callable[[Tensor], Tensor]], shape: tuple[int, int, int], owner: str
) -> None:
    """Refuse filters that do not sum to the identity on images of ``shape`` (C, H, W)."""
    if not all(callable(part) for part in parts):
        raise TypeError(f"{owner}: parts must be functions of an image, got {shown(parts)}")
    x, y = probes(shape)
    for part in parts:
        _tried(part, x, owner)
    gap = (sum((part(x) for part in parts), torch.zeros_like(x)) - x).abs().max().item()
    if not gap < TOLERANCE:
        raise ValueError(
            f"{owner}: the parts do not sum to the identity (off by {gap:.2g}); make the last "
            "part the rest, x minus the others"
        )
    for part in parts:
        if trouble := not_linear(part, x, y) or not_by_image(part, x) or not_pure(part, x):
            raise ValueError(
                f"{owner}: {part!r} is not linear ({trouble}); use a linear filter of one image"
            )


def _tried(part: Callable[[Tensor], Tensor], x: Tensor, owner: str) -> None:
    """Refuse a filter that breaks on an image, or that returns something else."""
    try:
        seen: object = part(x.clone())
    except Exception as error:  # whatever it raises is its owner's to mend
        raise ValueError(
            f"{owner}: {part!r:.80} fails on images of {tuple(x.shape[1:])} "
            f"({type(error).__name__}: {error}); use a filter of any image (B, C, H, W)"
        ) from error
    if not isinstance(seen, Tensor) or seen.shape != x.shape:
        what = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
        raise ValueError(
            f"{owner}: {part!r:.80} makes {what} of an image {tuple(x.shape)}; a filter keeps the "
            "shape"
        )
