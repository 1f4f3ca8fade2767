"""The contract of decompositions: linear parts of an image that sum to it, at every size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import torch
from torch import Tensor

from composer.testing.checks import (
    TOLERANCE,
    Check,
    Contract,
    checks_of,
    first,
    in_words,
    off,
    rounding,
    run_all,
    writes_into,
)
from composer.testing.global_state import global_trouble
from composer.testing.probe import (
    DTYPES,
    Shape,
    at,
    checked_shapes,
    layouts,
    noise,
    refusal,
    require_taken,
)

Part = Callable[[Tensor], Tensor]

SIZES = ((28, 28), (40, 64), (16, 16), (64, 24))
# Oblong images too; filters of a large square take seconds.
LARGE = ((256, 256), (24, 1024), (1024, 24))
REFERENCE = 64
# Periods per side, by size. At 28 pixels short waves span a few pixels, where filters round.
WAVES = {28: (1, 2), 256: (2, 5)}
SHARE = 0.15


@dataclass(frozen=True)
class Decomposed:
    """Parts (B, C, H, W) -> (B, C, H, W), and the shapes (C, H, W) to examine them at."""

    parts: tuple[Part, ...]
    given: tuple[Shape, ...] = ()

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Real sizes in three channels, and the first of them in one channel if accepted."""
        gray = ((1, *SIZES[0]),) if self.channels == 1 else ()
        return self.given or (*((3, *size) for size in SIZES), *gray)

    @cached_property
    def large(self) -> tuple[Shape, ...]:
        """Large shapes; the square only if shapes are given, because others may not be accepted."""
        return tuple((self.channels, *size) for size in LARGE[: 1 if self.given else None])

    @cached_property
    def channels(self) -> int:
        """Channels of large images: one if the parts accept it, which saves two thirds."""
        channels, height, width = self.given[0] if self.given else (3, *SIZES[0])
        refused = any(refusal(part, (1, height, width)) for part in self.parts)
        return channels if refused else 1


def decomposition_checks(
    decomposition: object, *, shapes: Sequence[Shape] | None = None
) -> list[Check]:
    """The named checks of a decomposition.

    Args:
        decomposition: a sequence of parts, or any object with the attribute ``parts``.
        shapes: (C, H, W) to examine it at; None for one and three channels, 16 to 256 pixels, and
            oblong ones up to 1024.

    Raises:
        TypeError, ValueError: there are no parts or no shapes, or a part raises at a shape.
    """
    parts = getattr(decomposition, "parts", decomposition)
    if not isinstance(parts, Sequence) or not parts or not all(callable(p) for p in parts):
        raise TypeError(
            f"decomposition must be a sequence of functions of an image, or an object with such "
            f"parts, got {in_words(decomposition)}."
        )
    given = checked_shapes(shapes)
    require_taken(parts, given, decomposition)
    return checks_of(CONTRACT, Decomposed(tuple(parts), given), in_words(decomposition))


def check_decomposition(decomposition: object, *, shapes: Sequence[Shape] | None = None) -> None:
    """Run all :func:`decomposition_checks`.

    Raises:
        CheckFailed: it lists every check that failed, why, and what to do.
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


def nonzero(thing: Decomposed) -> str:
    """No part is zero on images of three channels; its condition would have no effect."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        seen = size[0] == 1 or bool(part(noise(size, 1)).any())
        return "" if seen else f"part {i}{at(size)} is zero"

    return _every(thing, trouble)


def linear(thing: Decomposed) -> str:
    """P(2x - 3y) = 2 P x - 3 P y."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        x, y = noise(size, 1), noise(size, 1, seed=1)
        combined = 2 * part(x.clone()) - 3 * part(y.clone())
        return off(part(2 * x - 3 * y), combined, TOLERANCE, f"part {i}{at(size)}")

    return _every(thing, trouble)


def sum_to_identity(thing: Decomposed) -> str:
    """sum_i P_i x = x, to 1e-8 in float64; for large images to 1e-4 in float32, for speed."""

    def trouble(size: Shape, kind: torch.dtype, tolerance: float) -> str:
        x = noise(size, 1, dtype=kind)
        summed = reduce(add, (part(x.clone()) for part in thing.parts))
        return off(summed, x, tolerance, "the sum of the parts" + at(size))

    return first(trouble(size, torch.float64, TOLERANCE) for size in thing.shapes) or first(
        trouble(size, torch.float32, 1e-4) for size in thing.large
    )


def by_image(thing: Decomposed) -> str:
    """An image has the same parts in a batch as alone."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        x = noise(size, 3)
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
    """Parts keep float16, bfloat16, float32 and float64, and sum to x within rounding."""

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
                yield off(summed, x, len(seen) * rounding(x), f"the sum in {kind}{at(size)}")

    return first(troubles())


def non_contiguous(thing: Decomposed) -> str:
    """An image has the same parts in every memory layout."""

    def troubles() -> Iterator[str]:
        for i, part in enumerate(thing.parts):
            for layout, x in layouts(thing.shapes[0]):
                expected = part(x.clone(memory_format=torch.contiguous_format))
                yield off(part(x), expected, TOLERANCE, f"part {i} of a {layout} x")

    return first(troubles())


def global_state(thing: Decomposed) -> str:
    """The parts do not use global generators of torch, numpy and random, nor torch's settings.

    They do not draw from, seed or read the generators, nor change torch's dtype and threads.
    """
    return global_trouble(lambda: [part(noise(thing.shapes[0], 1)) for part in thing.parts])


def deterministic(thing: Decomposed) -> str:
    """The same image has the same parts, bitwise."""

    def trouble(size: Shape, i: int, part: Part) -> str:
        x = noise(size, 1)
        same = torch.equal(part(x.clone()), part(x.clone()))
        return "" if same else f"part {i}{at(size)} differs at the second call"

    return _every(thing, trouble)


def scales(thing: Decomposed) -> str:
    """The same picture is split in the same way at 28, 64 and 256 pixels.

    For waves w of 1 to 5 periods per side, <w, P w> / <w, w> equals that at 64 pixels within 0.15.
    """

    def shares(part: Part, size: int, periods: Sequence[int]) -> Tensor:
        """The share of each wave (2 periods,), along the rows, and along rows and columns."""
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
            f"part {i} takes {gap:.2g} more or less of {worst} periods per side at {size} pixels "
            f"than at {REFERENCE}"
        )

    return first(
        trouble(i, part, *wave) for i, part in enumerate(thing.parts) for wave in WAVES.items()
    )


CONTRACT: Contract[Decomposed] = {
    shape: "return a tensor of the argument's shape at every size",
    nonzero: "leave out a part that is zero",
    linear: "filter with weights that do not depend on the image",
    sum_to_identity: "make the last part the rest, x minus the others",
    by_image: "filter each image by itself",
    no_mutation: "make a new tensor; clone before writing",
    dtype: "keep x's dtype, and convert kernels and masks with .to(x)",
    non_contiguous: "use reshape or flatten instead of view, and do not read strides",
    global_state: "draw no random numbers, and change no global settings",
    deterministic: "keep no state between calls and draw no random numbers",
    scales: "state lengths at 64 pixels and scale them with the image: the same stack runs at "
    "every stage of a cascade",
}
"""The laws of a decomposition, and what to do where one is broken."""


def _every(thing: Decomposed, trouble: Callable[[Shape, int, Part], str]) -> str:
    return first(
        trouble(size, i, part) for size in thing.shapes for i, part in enumerate(thing.parts)
    )
