"""The images with which the kit examines a transform, of sizes that it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from unittest import SkipTest

import torch
from torch import Tensor

from composer.arguments import integer, sequence
from composer.errors import shown
from composer.testing.checks import in_words
from composer.transforms import Transform

Shape = tuple[int, int, int]
Map = Callable[[Tensor], Tensor]

REAL = ((28, 28), (64, 64), (40, 64), (16, 64), (64, 16), (33, 27), (256, 256))
SMALL = ((6, 6), (8, 8), (12, 12), (16, 16))
SMALL_OBLONG = ((6, 8), (5, 7), (8, 12), (16, 24))
FRESH = ((20, 20), (44, 44), (52, 52), (36, 36), (20, 12))
TINY = ((1, 1), (2, 2), (3, 3), (4, 4), (1, 4), (3, 2))
LARGE = ((1024, 1024), (512, 512), (128, 128))
# If none of the above is accepted: small sizes, then sizes of models.
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
        given: shapes; empty for the accepted shapes of the lists above.
    """

    transform: Transform
    given: tuple[Shape, ...] = ()

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Real sizes, oblong ones if accepted, and other numbers of channels."""
        if self.given:
            return self.given
        real = self._accepted(REAL) or self._any
        return real + self._other_channels(real[0])

    @cached_property
    def small(self) -> tuple[Shape, ...]:
        """A square and an oblong shape, small enough for the whole matrix of Q, and the first one
        in other numbers of channels."""
        if self.given:
            return self.given[:1]
        chosen = self._accepted(SMALL)[:1] + self._accepted(SMALL_OBLONG)[:1] or self._any
        return chosen + self._other_channels(chosen[0])

    @cached_property
    def middling(self) -> tuple[Shape, ...]:
        """The real sizes except the largest, for checks with many calls."""
        return tuple(s for s in self.shapes if s[1] * s[2] <= 64 * 64) or self.shapes[:1]

    @cached_property
    def extreme(self) -> tuple[Shape, ...]:
        """Shapes of a few pixels and of a million, in one channel if the view accepts it."""
        if self.given:
            return self.given
        light = sorted(CHANNELS)
        chosen = self._accepted(TINY, light) + self._accepted(LARGE, light, most=1)
        return chosen or self.shapes[:1]

    @cached_property
    def fresh(self) -> tuple[Shape, ...]:
        """Sizes at which the view was never called before, each for one law."""
        channels = self.shapes[0][0]
        accepted = [size for size in FRESH if self.transform.accepts(*size)]
        return () if self.given else tuple((channels, *size) for size in accepted)

    @cached_property
    def _any(self) -> tuple[Shape, ...]:
        if shapes := self._accepted(FURTHER, most=1):
            return shapes
        raise SkipTest("The kit knows no accepted size. Give shapes=[(C, H, W)].")

    def _accepted(
        self,
        sizes: Iterable[tuple[int, int]],
        order: Sequence[int] = CHANNELS,
        most: int | None = None,
    ) -> tuple[Shape, ...]:
        accepted = (size for size in sizes if self.transform.accepts(*size))
        return tuple(
            next(self._taken(size, order), (order[0], *size))  # if none, the checks fail
            for size in islice(accepted, most)
        )

    def _other_channels(self, shape: Shape) -> tuple[Shape, ...]:
        _, height, width = shape
        return tuple(other for other in self._taken((height, width), CHANNELS) if other != shape)

    def _taken(self, size: tuple[int, int], order: Iterable[int]) -> Iterator[Shape]:
        """Shapes with numbers of channels that the view accepts; ``accepts`` knows sizes only."""
        shapes = ((channels, *size) for channels in order)
        return (shape for shape in shapes if not refusal(self.transform, shape))


def checked_shapes(shapes: Sequence[Shape] | None) -> tuple[Shape, ...]:
    """Return the given shapes, checked; None becomes ()."""
    if shapes is None:
        return ()
    given = tuple(checked_shape(shape) for shape in sequence(shapes, "shapes"))
    if not given:
        raise ValueError("shapes must not be empty. Give at least one (C, H, W), or None.")
    return given


def checked_shape(shape: Shape) -> Shape:
    """Return (C, H, W) if each is at least 1."""
    sizes = [integer(n, "C, H and W of a shape", least=1) for n in sequence(shape, "a shape")]
    if len(sizes) != 3:
        raise ValueError(f"a shape must be (C, H, W), got {shown(shape)}.")
    channels, height, width = sizes
    return channels, height, width


def require_taken(maps: Iterable[Map], shapes: Iterable[Shape], owner: object) -> None:
    """Raise a ValueError if a map does not accept one of the shapes."""
    for view, shape in product(tuple(maps), shapes):
        if why := refusal(view, shape):
            raise ValueError(
                f"shapes: {in_words(owner)} does not accept {shape} ({why}). Give other shapes."
            )


def refusal(view: Map, shape: Shape) -> str:
    """The message of a map's ValueError for images (C, H, W); "" if it accepts them."""
    try:
        view(torch.zeros(1, *shape))
    except ValueError as error:
        return str(error) or "ValueError"
    except Exception:
        return ""  # the map is broken, and the checks will fail
    return ""


def noise(
    shape: Sequence[int], *lead: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """N(0, 1) images (*lead, C, H, W) from a new generator."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((*lead, *shape), generator=generator, dtype=torch.float64).to(dtype)


def layouts(shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """Pairs of images with other memory layouts than the contiguous one."""
    channels, height, width = shape
    yield "strided", noise((channels, 2 * height, 2 * width), 2)[..., ::2, ::2]
    yield "transposed", noise((channels, width, height), 2).transpose(-2, -1)
    yield "channels-last", noise((height, width, channels), 2).movedim(-1, -3)
    yield "expanded", noise(shape).expand(2, *shape)


def maps(transform: Transform) -> Iterator[tuple[str, Map]]:
    """Q, Q^-1 and the maps of variances if they differ from these, each with its name."""
    yield "f(x)", transform
    yield "inverse(x)", transform.inverse
    for name in ("view_variance", "inverse_variance"):
        if getattr(type(transform), name) is not getattr(Transform, name):
            yield f"{name}(x)", getattr(transform, name)


def at(shape: Shape) -> str:
    """ " of 28x28 images"; " of 1x28x28 images" for other than three channels."""
    sizes = shape[1:] if shape[0] == CHANNELS[0] else shape
    return f" of {'x'.join(map(str, sizes))} images"
