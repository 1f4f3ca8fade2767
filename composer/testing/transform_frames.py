"""Checks of the frames between an image and its view, for animations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, product

import torch
from torch import Tensor

from composer.testing.checks import TOLERANCE, Contract, first, off, rounding
from composer.testing.probe import DTYPES, Probe, Shape, at, noise
from composer.transforms import Transform

BETWEEN = (0.25, 0.5, 0.75)


def frame(probe: Probe) -> str:
    """frame(x, 0) is x and frame(x, 1) is f(x), at every size; large sizes in float64 only."""

    def trouble(size: Shape, dtype: torch.dtype, u: float) -> str:
        x = noise(size, 2, dtype=dtype)
        picture, wrong = _drawn(probe.transform, x, u)
        expected = probe.transform(x.clone()) if u else x
        return wrong or off(picture, expected, rounding(x), f"frame(x, {u:g}) in {dtype}{at(size)}")

    return first(
        trouble(size, dtype, u)
        for size in probe.shapes
        for dtype in (DTYPES if size in probe.middling else [torch.float64])
        for u in (0.0, 1.0)
    )


def frame_between(probe: Probe) -> str:
    """A frame between is finite, has x's shape and dtype, and treats each image by itself."""
    cases = zip(probe.shapes, cycle(BETWEEN), strict=False)
    kinds = product(BETWEEN, DTYPES)
    return first(_unlike(probe.transform, size, u) for size, u in cases) or first(
        _drawn(probe.transform, noise(probe.shapes[0], 2, dtype=dtype), u)[1] for u, dtype in kinds
    )


FRAMES: Contract[Probe] = {
    frame: "return x at u = 0 and f(x) at u = 1, in x's dtype, and write into new tensors only",
    frame_between: "draw each image by itself, from x and u alone, in x's dtype; index dimensions "
    "from the end",
}
"""The laws of frames, and what to do where one is broken."""


def _drawn(view: Transform, x: Tensor, u: float) -> tuple[Tensor, str]:
    """frame(x, u), and what is wrong with its form."""
    given = x.clone()
    picture, what = view.frame(given, u), f"frame(x, {u:g}) of {x.dtype} {tuple(x.shape)}"
    if (picture.shape, picture.dtype) != (x.shape, x.dtype):
        return picture, f"{what} is {picture.dtype} {tuple(picture.shape)}"
    if not bool(picture.isfinite().all()):
        return picture, f"{what} is not finite"
    return picture, "" if torch.equal(given, x) else f"{what} writes into its argument"


def _unlike(view: Transform, size: Shape, u: float) -> str:
    """Whether frames of (A, B, C, H, W), (B, C, H, W) and (C, H, W) differ."""
    x = noise(size, 1, 2)

    def troubles() -> Iterator[str]:
        folded, wrong = _drawn(view, x, u)
        yield wrong
        for lead, part, expected in (
            ("(B, C, H, W)", x[0], folded[0]),
            ("(C, H, W)", x[0, 1], folded[0, 1]),
        ):
            what = f"frame(x, {u:g}) of {lead} in place of (A, B, C, H, W){at(size)}"
            yield off(view.frame(part.clone(), u), expected, TOLERANCE, what)

    return first(troubles())
