"""The same stack at another size of the image: what a cascade asks of the plugins it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, cast, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from composer import Transform
from composer.arguments import lacking
from composer.images import ImageLike, hold_image, read_mask, to_mask, to_pil, to_tensor
from composer_plugins.filters import GaussianBlur

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
ALIKE = 0.5
"""Correlation of two views' pictures above which they are one view. Rounding to pixels leaves a
skew at .9 and more, other permutations come to about 0."""


class Resizable(Protocol):
    """A plugin, decomposition, operator or view that holds something of a certain size.

    ``resized(height, width)`` returns the same for images of that size. What states its parameters
    at 64 pixels and scales them needs no such method.
    """

    def resized(self, height: int, width: int) -> object: ...


def resized(thing: T, height: int, width: int) -> T:
    """A thing for images of another size: itself, unless it is Resizable."""
    if lacking(thing, Resizable):
        return thing
    return cast(T, cast(Resizable, thing).resized(height, width))


@overload
def resized_image(image: Tensor, height: int, width: int, owner: str) -> Tensor: ...


@overload
def resized_image(image: ImageLike, height: int, width: int, owner: str) -> Tensor | Image: ...


def resized_image(image: ImageLike, height: int, width: int, owner: str) -> Tensor | Image:
    """An image (B, C, h, w) as (B, C, height, width), shrunk by averaging or enlarged bilinearly.

    A tensor remains one. A picture remains a picture, which a model in grey or in RGB can take.

    Raises:
        ValueError: other proportions; ``owner`` says whose image it is.
    """
    held = hold_image(image, owner)
    pixels = to_tensor(held)
    _require_proportions(pixels, height, width, owner)
    if height <= pixels.shape[-2]:
        made = F.interpolate(pixels, (height, width), mode="area")
    else:
        made = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    return made if isinstance(held, Tensor) else to_pil(made)[0]


def resized_mask(mask: ImageLike, height: int, width: int, owner: str) -> Tensor:
    """A mask (h, w) as (height, width): the mean of the pixels that each new one covers.

    So it is exactly 0 where all that a new pixel covers was 0, exactly 1 where all was 1, and
    between on the border: what is kept of an image is never repainted, and nothing beside it kept.

    Raises:
        ValueError: other proportions; ``owner`` says whose mask it is.
    """
    pixels = to_mask(mask, owner)
    _require_proportions(pixels, height, width, owner)
    return read_mask(pixels, (height, width), "stretch", owner)


def _require_proportions(pixels: Tensor, height: int, width: int, owner: str) -> None:
    h, w = pixels.shape[-2:]
    if h * width != w * height:
        raise ValueError(
            f"{owner} of {h}x{w} would be stretched to {height}x{width}; crop it to these "
            "proportions"
        )


def check_same_view(
    view: Transform, shape: tuple[int, int, int], larger: Transform, larger_shape: tuple[int, ...]
) -> None:
    """Refuse a view that is another one on larger images: what one stage has laid out for it, the
    next would see shuffled.

    A smooth random picture is enlarged, viewed and shrunk again, and compared with its view.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    picture = GaussianBlur(3.0)(noise)
    enlarged = F.interpolate(picture, larger_shape[1:], mode="nearest")
    shrunk = F.interpolate(larger(enlarged), shape[1:], mode="area")
    if F.cosine_similarity(view(picture).flatten(), shrunk.flatten(), dim=0) < ALIKE:
        height, width = larger_shape[1:]
        raise ValueError(
            f"{larger!r} at {height}x{width} is not the view that it is at {shape[1]}x{shape[2]}; "
            "choose parameters that both sizes allow, such as a grid that divides both"
        )
