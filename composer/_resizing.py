"""The same stack at another size of the image: what a cascade asks of the plugins it runs."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor
from torch.nn import functional as F

from composer.images import ImageLike, to_mask, to_tensor

T = TypeVar("T")
REFERENCE_SIZE = 64
"""The height of an image in pixels to which lengths in pixels refer."""


@runtime_checkable
class Resizable(Protocol):
    """A plugin, decomposition, operator or view that holds something of a certain size.

    ``resized(height, width)`` returns the same for images of that size. What states its parameters
    at 64 pixels and scales them needs no such method.
    """

    def resized(self, height: int, width: int) -> object: ...


def resized(thing: T, height: int, width: int) -> T:
    """A thing for images of another size: itself, unless it is Resizable."""
    if isinstance(thing, type) or not isinstance(thing, Resizable):
        return thing
    return thing.resized(height, width)  # type: ignore[return-value]


def resized_image(image: ImageLike, height: int, width: int, owner: str) -> Tensor:
    """An image (B, C, h, w) as (B, C, height, width), shrunk by averaging or enlarged bilinearly.

    Raises:
        ValueError: other proportions; ``owner`` says whose image it is.
    """
    pixels = to_tensor(image, owner)
    _require_proportions(pixels, height, width, owner)
    if height == pixels.shape[-2]:
        return pixels
    if height < pixels.shape[-2]:
        return F.interpolate(pixels, (height, width), mode="area")
    return F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)


def resized_mask(mask: ImageLike, height: int, width: int, owner: str) -> Tensor:
    """A mask (h, w) as (height, width): the mean of the pixels that each new one covers.

    So it is exactly 0 where all that a new pixel covers was 0, exactly 1 where all was 1, and
    between on the border: what is kept of an image is never repainted, and nothing beside it kept.

    Raises:
        ValueError: other proportions; ``owner`` says whose mask it is.
    """
    pixels = to_mask(mask)
    _require_proportions(pixels, height, width, owner)
    if height == pixels.shape[-2]:
        return pixels
    return F.interpolate(pixels[None, None], (height, width), mode="area")[0, 0]


def _require_proportions(pixels: Tensor, height: int, width: int, owner: str) -> None:
    h, w = pixels.shape[-2:]
    if h * width != w * height:
        raise ValueError(
            f"{owner} of {h}x{w} would be stretched to {height}x{width}; crop it to these "
            "proportions"
        )
