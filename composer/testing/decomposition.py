"""The contract of decompositions: linear parts of an image that sum to it, at every size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import torch
from torch import Tensor

from composer.testing.checks import Check, Contract, checks_of, first, off, run_all, writes_into
from composer.testing.probe import DTYPES, Shape, at, checked_shapes, noise, takes
from composer.transforms import TOLERANCE

Part = Callable[[Tensor], Tensor]

SIZES = ((28, 28), (40, 64), (64, 48))
LARGE = (256, 256)
REFERENCE = 64
# Periods a side, by size; at 28 pixels the short ones are a few pixels long, where filters round.
WAVES = {28: (1, 2), 256: (2, 5)}
SHARE = 0.15


@dataclass(frozen=True)
class Decomposed:
    """Parts (B, C, H, W) -> (B, C, H, W), and the shapes (C, H, W) to examine them at."""

    parts: tuple[Part, ...]
    shapes: tuple[Shape, ...]

    @cached_property
    def channels(self) -> int:
        """Of large images: one where the parts take one, which is a third of the work."""
        one = (1, *self.shapes[0][1:])
        return 1 if all(takes(part, one) for part in self.parts) else self.shapes[0][0]


def decomposition_checks(
    decomposition: object, *, shapes: Sequence[Shape] | None = None
) -> list[Check]:
    """The named checks of a decomposition.

    Args:
        decomposition: a sequence of parts, or any object with the attribute ``parts``.
        shapes: (C, H, W) to examine it at; None for three channels, 28 to 256 pixels, oblong too.

    Raises:
        TypeError, ValueError: it has no parts, or no shapes.
    """
    parts = getattr(decomposition, "parts", decomposition)
    if not isinstance(parts, Sequence) or not parts or not all(callable(p) for p in parts):
        raise TypeError(
            f"{decomposition!r} is no decomposition; give functions of an image, or an object "
            "whose attribute parts is a tuple of such"
        )
    chosen = checked_shapes(shapes) or tuple((3, *size) for size in SIZES)
    return checks_of(CONTRACT, Decomposed(tuple(parts), chosen), repr(decomposition))


def check_decomposition(decomposition: object, *, shapes: Sequence[Shape] | None = None) -> None:
    """Run all :func:`decomposition_checks`.

    Raises:
        CheckFailed: every check that failed, why, and what to mend.
    """
    run_all(decomposition_checks(decomposition, shapes=shapes))


def shape(thing: Decomposed) -> str:
    """Every part keeps (B, C, H, W), and stays finite."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        seen = part(noise(size, 1))
        if seen.shape != (1, *size):
            return f"part {i}{at(size)} has the shape {tuple(seen.shape)}"
        return "" if bool(seen.isfinite().all()) else f"part {i}{at(size)} is not finite"

    return _every(thing, trouble)


def linear(thing: Decomposed) -> str:
    """P(2x - 3y) = 2 P x - 3 P y."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        x, y = noise(size, 1), noise(size, 1, seed=1)
        combined = 2 * part(x.clone()) - 3 * part(y.clone())
        return off(part(2 * x - 3 * y), combined, TOLERANCE, f"part {i}{at(size)}")

    return _every(thing, trouble)


def sum_to_identity(thing: Decomposed) -> str:
    """sum_i P_i x = x, to 1e-8 in float64; at 256 pixels to 1e-4 in float32, which is faster."""

    def trouble(size: Shape, kind: torch.dtype, tolerance: float) -> str:
        x = noise(size, 1, dtype=kind)
        summed = reduce(add, (part(x.clone()) for part in thing.parts))
        return off(summed, x, tolerance, "the sum of the parts" + at(size))

    return first(trouble(size, torch.float64, TOLERANCE) for size in thing.shapes) or trouble(
        (thing.channels, *LARGE), torch.float32, 1e-4
    )


def by_image(thing: Decomposed) -> str:
    """An image of a batch has the parts it has alone."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        x = noise(size, 2)
        alone = torch.cat([part(image[None].clone()) for image in x])
        return off(part(x.clone()), alone, TOLERANCE, f"part {i} in a batch{at(size)}")

    return _every(thing, trouble)


def no_mutation(thing: Decomposed) -> str:
    """No part writes into its argument."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        written = writes_into(part, noise(size, 1))
        return f"part {i} writes into its argument{at(size)}" if written else ""

    return _every(thing, trouble)


def dtype(thing: Decomposed) -> str:
    """float16, bfloat16, float32 and float64 are kept, and the parts sum to x within rounding.

    Rounding: 16 eps max|x| a part.
    """

    def troubles() -> Iterator[str]:
        for size in thing.shapes[:2]:
            for kind in DTYPES:
                x = noise(size, 1, dtype=kind)
                seen = [part(x.clone()) for part in thing.parts]
                yield from (
                    f"part {i} of {kind} is {s.dtype}"
                    for i, s in enumerate(seen)
                    if s.dtype != kind
                )
                summed = reduce(add, (s.double() for s in seen))
                rounding = 16 * len(seen) * torch.finfo(kind).eps * x.abs().max().item()
                yield off(summed, x, rounding, f"the sum in {kind}{at(size)}")

    return first(troubles())


def deterministic(thing: Decomposed) -> str:
    """The same image has the same parts, bitwise."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        x = noise(size, 1)
        same = torch.equal(part(x.clone()), part(x.clone()))
        return "" if same else f"part {i}{at(size)} is another at the second call"

    return _every(thing, trouble)


def scales(thing: Decomposed) -> str:
    """The same picture is split alike at 28, 64 and 256 pixels.

    For waves w of 1 to 5 periods a side, <w, P w> / <w, w> is that at 64 pixels within 0.15.
    """

    def shares(part: Part, size: int, periods: Sequence[int]) -> Tensor:
        """(2 periods,): of each wave along the rows, and along rows and columns."""
        place = (torch.arange(size) + 0.5) / size
        waves = torch.stack([torch.cos(2 * math.pi * k * place) for k in periods])[:, :, None]
        images = torch.cat([waves.expand(-1, size, size), waves * waves.mT])[:, None]
        images = images.repeat(1, thing.channels, 1, 1)
        return (images * part(images)).sum((1, 2, 3)) / images.square().sum((1, 2, 3))

    def trouble(i: int, part: Part, size: int, periods: Sequence[int]) -> str:
        gaps = (shares(part, size, periods) - shares(part, REFERENCE, periods)).abs()
        gap, worst = gaps.max().item(), periods[int(gaps.argmax()) % len(periods)]
        if gap < SHARE:
            return ""
        return (
            f"part {i} takes {gap:.2g} more or less of {worst} periods a side at {size} pixels "
            f"than at {REFERENCE}"
        )

    return first(
        trouble(i, part, *wave) for i, part in enumerate(thing.parts) for wave in WAVES.items()
    )


CONTRACT: Contract[Decomposed] = {
    shape: "return a tensor of the argument's shape at every size",
    linear: "filter by weights that the image does not decide",
    sum_to_identity: "make the last part the rest, x minus the others",
    by_image: "filter each image by itself",
    no_mutation: "make a new tensor; clone before writing",
    dtype: "keep x's dtype, and make kernels and masks with .to(x)",
    deterministic: "keep no state between calls and draw no random numbers",
    scales: "state lengths at 64 pixels and scale them with the image: the same stack runs at "
    "every stage of a cascade",
}
"""The laws of a decomposition, and what to do where one is broken."""


def _every(thing: Decomposed, trouble: Callable[[Shape, int, Part], str]) -> str:
    return first(
        trouble(size, i, part) for size in thing.shapes for i, part in enumerate(thing.parts)
    )
