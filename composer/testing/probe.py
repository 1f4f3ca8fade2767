"""What a transform is examined with: images of sizes that it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from unittest import SkipTest

import torch
from torch import Tensor

from composer.arguments import integer, sequence
from composer.transforms import Transform

Shape = tuple[int, int, int]
Map = Callable[[Tensor], Tensor]

REAL = ((28, 28), (64, 64), (40, 64), (64, 48), (33, 27), (256, 256))
SMALL = ((6, 6), (8, 8), (12, 12), (16, 16))
SMALL_OBLONG = ((6, 8), (5, 7), (8, 12), (16, 24))
FRESH = ((20, 20), (44, 44), (52, 52), (20, 12))
# Where none of the above is accepted: anything small, then what models make.
FURTHER: tuple[tuple[int, int], ...] = (
    *product(range(1, 65), range(1, 65)),
    *((n, n) for n in (96, 128, 512, 1024)),
)
CHANNELS = (3, 1, 2, 4)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Probe:
    """A transform and the shapes (C, H, W) to examine it at.

    Args:
        transform: the view Q.
        given: shapes; none for those of the lists above that it accepts.
    """

    transform: Transform
    given: tuple[Shape, ...] = ()

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Real sizes, oblong ones too where they are accepted."""
        return self.given or self._accepted(REAL) or self._any

    @cached_property
    def small(self) -> tuple[Shape, ...]:
        """A square and an oblong shape, small enough for the whole matrix of Q."""
        chosen = self._accepted(SMALL)[:1] + self._accepted(SMALL_OBLONG)[:1]
        return self.given[:1] or chosen or self._any

    @cached_property
    def middling(self) -> tuple[Shape, ...]:
        """The real sizes without the largest, for checks that call often."""
        return tuple(s for s in self.shapes if s[1] * s[2] <= 64 * 64) or self.shapes[:1]

    @cached_property
    def fresh(self) -> tuple[Shape, ...]:
        """The real sizes and one at which the transform has not been called before."""
        return (*self.shapes, *(() if self.given else self._accepted(FRESH)[:1]))

    @cached_property
    def _any(self) -> tuple[Shape, ...]:
        for size in FURTHER:
            if shapes := self._accepted((size,)):
                return shapes
        raise SkipTest("no accepted size is known; give shapes=[(C, H, W)]")

    def _accepted(self, sizes: Iterable[tuple[int, int]]) -> tuple[Shape, ...]:
        accepted = [size for size in sizes if self.transform.accepts(*size)]
        return tuple((self._channels(*size), *size) for size in accepted)

    def _channels(self, height: int, width: int) -> int:
        """A channel count that the transform works with; ``accepts`` speaks of sizes only."""
        working = (c for c in CHANNELS if takes(self.transform, (c, height, width)))
        return next(working, CHANNELS[0])  # if none does, the checks will say so


def checked_shapes(shapes: Sequence[Shape] | None) -> tuple[Shape, ...]:
    """The shapes to examine something at; none leaves the choice to the kit."""
    if shapes is None:
        return ()
    given = tuple(checked_shape(shape) for shape in sequence(shapes, "shapes"))
    if not given:
        raise ValueError("shapes is empty; give at least one (C, H, W), or None")
    return given


def checked_shape(shape: Shape) -> Shape:
    """(C, H, W), each at least 1."""
    sizes = [integer(n, "C, H and W of a shape", least=1) for n in sequence(shape, "a shape")]
    if len(sizes) != 3:
        raise ValueError(f"a shape must be (C, H, W), got {shape!r}")
    channels, height, width = sizes
    return channels, height, width


def takes(view: Map, shape: Shape) -> bool:
    """Whether a map works at all on an image (1, C, H, W)."""
    try:
        view(torch.zeros(1, *shape))
    except Exception:
        return False
    return True


def noise(
    shape: Sequence[int], *lead: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """N(0, 1) images (*lead, C, H, W) from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((*lead, *shape), generator=generator, dtype=torch.float64).to(dtype)


def both(transform: Transform) -> Iterator[tuple[str, Map]]:
    """Q and Q^-1, and what to call them."""
    yield "f(x)", transform
    yield "inverse(x)", transform.inverse


def at(shape: Shape) -> str:
    """' of 28x28 images'."""
    return f" of {shape[1]}x{shape[2]} images"
