"""The same stack at another image size, as a cascade needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, cast, overload

from torch import Tensor
from torch.nn import functional as F

from composer._held import numbers_of, scaled
from composer.arguments import lacking
from composer.fitting import fit_mask
from composer.images import ImageLike, hold_image, to_mask, to_pil

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
REFERENCE_SIZE = 64
"""The height of an image in pixels to which lengths in pixels refer."""


class Resizable(Protocol):
    """A plugin, decomposition, operator or view that holds data of a fixed size.

    ``resized(height, width)`` returns the same object for images of that size. An object whose
    parameters are stated at 64 pixels and scale needs no such method.
    """

    def resized(self, height: int, width: int) -> object: ...


def resized(thing: T, height: int, width: int) -> T:
    """The thing for images of another size: itself, unless it is Resizable."""
    if lacking(thing, Resizable):
        return thing
    return cast(T, cast(Resizable, thing).resized(height, width))


@overload
def resized_image(image: Tensor, height: int, width: int, owner: str) -> Tensor: ...


@overload
def resized_image(image: ImageLike, height: int, width: int, owner: str) -> Tensor | Image: ...


def resized_image(image: ImageLike, height: int, width: int, owner: str) -> Tensor | Image:
    """An image (B, C, h, w) as (B, C, height, width), shrunk by averaging or enlarged bilinearly.

    A tensor remains a tensor. A picture remains a picture, so that grey and RGB models can use it.

    Raises:
        ValueError: the proportions differ; the message names ``owner``.
    """
    held = hold_image(image, owner)
    pixels = scaled(*numbers_of(held))
    _require_proportions(pixels, height, width, owner)
    if height == pixels.shape[-2]:
        return pixels if isinstance(held, Tensor) else held
    if height < pixels.shape[-2]:
        made = F.interpolate(pixels, (height, width), mode="area")
    else:
        made = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    return made if isinstance(held, Tensor) else to_pil(made)[0]


def resized_mask(mask: ImageLike, height: int, width: int, owner: str) -> Tensor:
    """A mask (h, w) as (height, width): the mean of the pixels that each new one covers.

    A new pixel is exactly 0 where it covers only zeros, exactly 1 where it covers only ones, and
    between 0 and 1 on the border. So known pixels stay known and repainted pixels stay repainted.

    Raises:
        ValueError: the proportions differ; the message names ``owner``.
    """
    pixels = to_mask(mask, owner)
    _require_proportions(pixels, height, width, owner)
    if height == pixels.shape[-2]:
        return pixels
    return fit_mask(pixels, (height, width), "stretch")


def _require_proportions(pixels: Tensor, height: int, width: int, owner: str) -> None:
    h, w = pixels.shape[-2:]
    if h * width != w * height:
        raise ValueError(
            f"{owner} must have the proportions of {height}x{width}, got {h}x{w}. Crop it first."
        )
