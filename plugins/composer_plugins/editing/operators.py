"""Linear measurements A of an image, with their pseudoinverses, for DDNM.

Each is also a decomposition into its range and its null space: x = A+ A x + (x - A+ A x).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, cast

from torch import Tensor
from torch.nn import functional as F

from composer import Backend
from composer.arguments import integer, lacking
from composer.authoring import (
    Part,
    image_shape_of,
    once,
    probes,
    resized_image,
    resized_mask,
    rounding,
)
from composer.errors import said
from composer.images import ImageLike, hold_mask, to_mask


class Operator(Protocol):
    """A linear map A of images (B, C, H, W) and its pseudoinverse A+: A A+ A = A."""

    def apply(self, x: Tensor) -> Tensor:
        """A x."""
        ...

    def pinv(self, y: Tensor) -> Tensor:
        """A+ y, an image (B, C, H, W)."""
        ...


class ResizableOperator(Operator, Protocol):
    """An operator that can measure images of another size, as a cascade needs."""

    def at_size(self, y: Tensor, height: int, width: int) -> tuple[Operator, Tensor]:
        """A and the measurement y (B, C', H', W') for the same picture at another size.

        Raises:
            ValueError: the operator cannot measure at this size; the message says why.
        """
        ...


def range_and_null_space(operator: Operator) -> tuple[Part, Part]:
    """A+ A and I - A+ A, which sum to the identity."""

    def seen(x: Tensor) -> Tensor:
        return operator.pinv(operator.apply(x))

    return seen, lambda x: x - seen(x)


@dataclass(frozen=True, eq=False)
class KnownPixels:
    """A x = the pixels outside the hole: inpainting. The measurement is an image.

    Args:
        mask: a tensor (H, W) of 0 and 1, 1 = repaint; or a path, a PIL image or an array of black
            and white pixels, white = 1.
    """

    mask: ImageLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", hold_mask(self.mask, "KnownPixels: mask"))
        if not bool(((self._hole == 0) | (self._hole == 1)).all()):
            raise ValueError(
                "KnownPixels: mask must be 0 or 1 everywhere. Round it, or use Inpaint."
            )

    def resized(self, height: int, width: int) -> KnownPixels:
        """The mask at another size; a pixel is known if all that it covers is known."""
        mask = resized_mask(self.mask, height, width, "KnownPixels: mask")
        return KnownPixels((mask > 0).float())

    def at_size(self, y: Tensor, height: int, width: int) -> tuple[KnownPixels, Tensor]:
        return self.resized(height, width), resized_image(y, height, width, "KnownPixels: image")

    def apply(self, x: Tensor) -> Tensor:
        mask = self._hole.to(x)
        if mask.shape != x.shape[-2:]:
            raise ValueError(
                f"KnownPixels: mask must be {x.shape[-2]}x{x.shape[-1]} as the image, got "
                f"{mask.shape[0]}x{mask.shape[1]}. Resize the mask first."
            )
        return x * (1 - mask)

    pinv = apply

    @cached_property
    def _hole(self) -> Tensor:
        """(H, W)."""
        return to_mask(self.mask)

    @property
    def parts(self) -> tuple[Part, Part]:
        return range_and_null_space(self)


@dataclass(frozen=True)
class BlockMean:
    """A x = the means of blocks: super-resolution. The measurement is the small image.

    Args:
        factor: side of a block in pixels, at least 1; it must divide the image's sides.
    """

    factor: int

    def __post_init__(self) -> None:
        integer(self.factor, "BlockMean: factor", least=1)

    def at_size(self, y: Tensor, height: int, width: int) -> tuple[BlockMean, Tensor]:
        """Scale the blocks with the image and keep their means. Where there are fewer pixels than
        blocks, average neighbouring blocks."""
        rows, columns = y.shape[-2:]
        if rows % height == 0:
            return BlockMean(1), resized_image(y, height, width, "BlockMean: measurement")
        if height % rows or height * columns != width * rows:
            raise ValueError(
                f"BlockMean: the size must be a multiple or a divisor of {rows}x{columns} blocks, "
                f"got {height}x{width}."
            )
        return BlockMean(height // rows), y

    def apply(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"BlockMean: image sides must be multiples of {self.factor}, got {height}x{width}."
            )
        return F.avg_pool2d(x, self.factor)

    def pinv(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)

    @property
    def parts(self) -> tuple[Part, Part]:
        return range_and_null_space(self)


@dataclass(frozen=True)
class Gray:
    """A x = the mean of the channels: colourisation. The measurement has one channel.

    Args:
        channels: of the image, at least 1.
    """

    channels: int

    def __post_init__(self) -> None:
        integer(self.channels, "Gray: channels", least=1)

    def at_size(self, y: Tensor, height: int, width: int) -> tuple[Gray, Tensor]:
        return self, resized_image(y, height, width, "Gray: measurement")

    def apply(self, x: Tensor) -> Tensor:
        if x.shape[-3] != self.channels:
            raise ValueError(
                f"Gray: the image must have {self.channels} channel(s), got {x.shape[-3]}."
            )
        return x.mean(-3, keepdim=True)

    def pinv(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.channels, -3)

    @property
    def parts(self) -> tuple[Part, Part]:
        return range_and_null_space(self)


def measured_at(
    operator: object, y: Tensor, height: int, width: int, owner: str
) -> tuple[Any, Tensor]:
    """An operator and its measurement y (B, C', H', W') for images of another size; both unchanged
    if they measure images of this size already.

    Raises:
        ValueError: the operator has no ``at_size``, or cannot measure at this size.
    """
    if not lacking(operator, Operator):
        known = cast(Operator, operator)
        if known.pinv(y).shape[-2:] == (height, width):
            return operator, y
        if not lacking(operator, ResizableOperator):
            return cast(ResizableOperator, operator).at_size(y, height, width)
    raise ValueError(
        f"{owner}: operator must have at_size to measure at {height}x{width}, got {operator!r}. "
        "Define at_size(y, height, width)."
    )


def check_operator(operator: Operator, backend: Backend, owner: str) -> tuple[int, ...]:
    """Raise a ValueError unless an operator is linear on the backend's images and has a correct
    pseudoinverse.

    Returns:
        The shape of a measurement.
    """
    try:
        return once(
            partial(_probe_operator, operator, backend),
            *("operator", operator, image_shape_of(backend), backend.dtype, backend.device),
        )
    except ValueError as error:
        raise ValueError(f"{owner}: {operator!r} {error}") from error


def _probe_operator(operator: Operator, backend: Backend) -> tuple[int, ...]:
    x = probes(backend)
    try:
        y = operator.apply(x)
        back = operator.pinv(y)
        gap = (operator.apply(back) - y).abs().max().item()
    except Exception as error:  # a third party's operator may raise anything
        raise ValueError(
            f"failed on images of {image_shape_of(backend)} ({said(error)}). Correct apply or pinv."
        ) from error
    bent = (2 * y[0] + 3 * y[1] + y[2]).abs().max().item()
    within = max(rounding(x), rounding(y))
    if back.shape != x.shape or not (gap <= within and bent <= within):
        raise ValueError(
            f"must be linear with a pseudoinverse, got A A+ A off by {gap:.2g} and A(-2x - 3y) off "
            f"by {bent:.2g}. Correct apply or pinv."
        )
    return tuple(y.shape[1:])
