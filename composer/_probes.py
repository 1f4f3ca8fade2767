"""Probes of views and parts when a Sampler is built: one batch each, once per process.

The proofs are in :mod:`composer.testing`. A probe finds errors larger than the rounding of the
backend's dtype. It applies a view and its inverse once, and a part once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from composer._once import once
from composer._parts import Decomposition, Part, parts_of
from composer.errors import owned, said, shown
from composer.latents import image_shape_of
from composer.lent import version
from composer.protocols import Backend
from composer.transforms import Transform


def check_view(view: Transform, backend: Backend, owner: str) -> None:
    """Raise a ValueError unless a view is linear and orthogonal on the backend's images.

    For a linear Q, |Qx|^2 - |x|^2 = x^T (Q^T Q - I) x is a polynomial in x; if it vanishes at a
    random x it vanishes everywhere, with probability one. The same holds for f^-1(f(x)) - x, which
    finds lost pixels, and for f^-1(2 f(x) + 3 f(y)) - 2x - 3y, which finds nonlinear maps.

    Raises:
        TypeError: the view is not a Transform.
        ValueError: the view does not accept the size, is not linear and orthogonal, changes its
            argument, or changes values without overriding the maps of variances.
    """
    if not isinstance(view, Transform):
        raise TypeError(
            f"{owner}: view must be a Transform, got {shown(view)}. Give a name such as 'flip', or "
            "a Transform object."
        )
    _, height, width = image_shape_of(backend)
    if not view.accepts(height, width):
        raise ValueError(f"{owner}: {shown(view)} accepts {view.sizes}, not {height}x{width}.")
    _once_for(backend, owner, partial(_probe_view, view, backend), "view", view)


def check_parts(
    parts: Decomposition | Sequence[Part], backend: Backend, owner: str, may_vanish: bool = False
) -> None:
    """Raise a ValueError unless parts are linear maps that sum to the identity on images.

    Args:
        parts: functions of an image, or an object with such ``parts``.
        backend: the model that sets the shape of the images.
        owner: the plugin that messages name.
        may_vanish: whether a part may be zero on all images.

    Raises:
        TypeError: parts are not functions.
        ValueError: a part is not linear, changes its argument or the shape, or is zero; or the
            parts do not sum to the identity.
    """
    functions = parts_of(parts, owner)
    vanishing = _once_for(backend, owner, partial(_probe_parts, functions, backend), "parts", parts)
    if vanishing and not may_vanish:
        raise ValueError(
            f"{owner}: part {vanishing[0]} of {shown(parts)} is zero on images of {backend.shape}. "
            "Leave it out, or use another decomposition: gray images have no colour."
        )


def rounding(x: Tensor) -> float:
    """The rounding error to allow: 16 eps max|x|, in float64 1e-8 max|x|."""
    return _relative(x) * x.abs().max().item()


def probes(backend: Backend) -> Tensor:
    """Images x, y and z = -2x - 3y (3, C, H, W) of N(0, 1) noise, fixed for each shape.

    A map of one image is linear if 2 f(x) + 3 f(y) + f(z) = 0. No half-space holds all three
    images, so this also finds a map that is linear in each of two half-spaces.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *image_shape_of(backend), generator=generator)
    x, y = images.to(backend.device, backend.dtype)
    return torch.stack([x, y, -2 * x - 3 * y])


def _once_for(
    backend: Backend, owner: str, probe: Callable[[], Sequence[int]], kind: str, thing: object
) -> Sequence[int]:
    """The cached result of a probe; its errors begin with the owner."""
    with owned(owner):
        return once(probe, kind, thing, image_shape_of(backend), backend.dtype, backend.device)


def _probe_view(view: Transform, backend: Backend) -> tuple[()]:
    x = probes(backend)
    seen = _applied(view, view, x[:2])
    back = _applied(view.inverse, view, torch.stack([seen[0], -2 * seen[0] - 3 * seen[1]]))
    if trouble := _stretched(seen[0], x[0]) or _not_undone(back, x[::2]):
        raise ValueError(
            f"{shown(view)} is not orthogonal ({trouble}). Use a permutation, rotation or sign "
            "change of pixels, so that the model sees noise as it was trained on."
        )
    kind = type(view)
    silent = (
        kind.view_variance is Transform.view_variance
        or kind.inverse_variance is Transform.inverse_variance
    )
    if silent and not _moves_only(seen[0], x[0]):
        raise ValueError(
            f"{shown(view)} changes values but maps variances as if it moved pixels. Override "
            "view_variance and inverse_variance with the squares of its entries."
        )
    return ()


def _probe_parts(parts: Sequence[Part], backend: Backend) -> list[int]:
    """Which parts are zero."""
    x = probes(backend)
    summed, scale, vanishing = torch.zeros_like(x), 0.0, []
    for place, part in enumerate(parts):
        seen = _applied(part, part, x)
        within = max(rounding(x), rounding(seen))
        if trouble := _not_linear(seen, within):
            raise ValueError(
                f"{shown(part)} is not linear ({trouble}). Use a linear filter of one image."
            )
        if not bool(seen[0].any()):
            vanishing.append(place)
        summed, scale = summed + seen, scale + within
    gap = (summed - x).abs().max().item()
    if not gap <= scale:
        raise ValueError(
            f"the parts do not sum to the identity (off by {gap:.2g}). Make the last part the "
            "rest, x minus the others."
        )
    return vanishing


def _applied(function: Callable[[Tensor], Tensor], owner: object, x: Tensor) -> Tensor:
    """Apply a function to images; raise a ValueError if it changes their kind or its argument."""
    shape, written = tuple(x.shape[1:]), version(x)
    try:
        seen: object = function(x)
    except Exception as error:  # the author's function may raise anything
        raise ValueError(
            f"{shown(owner)} failed on images of {shape} ({said(error)}). It must work on any "
            "images (B, C, H, W)."
        ) from error
    if _described(seen) != (given := _described(x)):
        raise ValueError(
            f"{shown(owner)} returns {_described(seen)} for {given}. Keep shape, dtype and device."
        )
    if version(x) != written:
        raise ValueError(f"{shown(owner)} writes into its argument. Make a new tensor.")
    return cast(Tensor, seen)


def _described(x: object) -> str:
    if not isinstance(x, Tensor):
        return type(x).__name__
    return f"images {tuple(x.shape)} of {x.dtype} on {x.device}"


def _not_linear(seen: Tensor, within: float) -> str:
    gap = (2 * seen[0] + 3 * seen[1] + seen[2]).abs().max().item()
    return "" if gap <= within else f"f(-2x - 3y) is not -2 f(x) - 3 f(y), off by {gap:.2g}"


def _stretched(seen: Tensor, x: Tensor) -> str:
    # torch adds squares pairwise, so that float32 sums are exact to its rounding.
    before, after = (_wide(image).square().sum().sqrt().item() for image in (x, seen))
    gap = abs(after / before - 1)
    return "" if gap <= _relative(x) else f"it changes lengths by the factor {after / before:.6g}"


def _not_undone(back: Tensor, x: Tensor) -> str:
    gap, bent = (back - x).abs().amax((1, 2, 3)).tolist()
    if not gap <= rounding(x):
        return f"inverse(f(x)) is not x, off by {gap:.2g}"
    said = f"inverse(2 f(x) + 3 f(y)) is not 2x + 3y, off by {bent:.2g}"
    return "" if bent <= rounding(x) else said


def _moves_only(seen: Tensor, x: Tensor) -> bool:
    """Whether an orthogonal map is a permutation, the only kind that keeps the sum of cubes."""
    before, after = (_wide(image) ** 3 for image in (x, seen))
    gap = (after.sum() - before.sum()).abs() / before.abs().sum()
    return gap.item() <= _relative(x)


def _relative(x: Tensor) -> float:
    return max(1e-8, 16 * torch.finfo(x.dtype).eps)


def _wide(x: Tensor) -> Tensor:
    """Half precision as float32; float64 only if the backend uses it."""
    return x.float() if x.itemsize < 4 else x
