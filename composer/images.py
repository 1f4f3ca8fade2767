"""Convert images and masks of callers: check them once and make tensors in [-1, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from composer._held import (
    Held,
    ImageLike,
    checked_image,
    checked_mask,
    mask_pixels,
    numbers_of,
    opened_image,
    opened_mask,
    scaled,
    size_of,
    tensor_of_fractions,
)
from composer.arguments import floating
from composer.fitting import Fit, Size, alike, check_fit, fit_image, fit_mask

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Fit",
    "Held",
    "ImageLike",
    "Size",
    "alike",
    "all_finite",
    "check_fit",
    "hold_image",
    "hold_mask",
    "read_mask",
    "read_picture",
    "require_mask",
    "require_shape",
    "shape_of",
    "to_mask",
    "to_pil",
    "to_pixels",
    "to_tensor",
]

_Shape: TypeAlias = tuple[int, int, int]
"""(C, H, W)."""

_LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of R, G, B in grey, ITU-R BT.601, as in PIL."""


def read_picture(
    image: ImageLike, shape: _Shape, fit: Fit | None = "crop", name: str = "image"
) -> Tensor:
    """Read any picture for a model: ``read_picture("cat.jpg", backend.shape)``.

    Grey and RGB pictures are converted to the channels of the shape. A tensor keeps its channels.

    Args:
        image: see :data:`ImageLike`.
        shape: (C, H, W).
        fit: "crop" cuts the middle out in the proportions of the shape, "pad" adds white bars,
            "stretch" distorts; None requires the size of the shape.
        name: the argument that messages name.

    Returns:
        (B, C, H, W) in [-1, 1]; B = 1 for a picture.

    Raises:
        TypeError, ValueError, FileNotFoundError: it is not a picture, or does not fit.
    """
    held = checked_image(image, name)
    require_shape(held, shape, name, fit)
    numbers, white = numbers_of(held)
    if fit is not None:  # resize a photograph as uint8, which is ten times faster
        numbers = fit_image(numbers, shape[1:], fit, white)
    pixels = scaled(numbers, white)
    if pixels.shape[1] < shape[0]:
        return pixels.expand(-1, shape[0], -1, -1)
    if pixels.shape[1] > shape[0]:
        return (pixels.new_tensor(_LUMINANCE)[:, None, None] * pixels).sum(1, keepdim=True)
    return pixels


def read_mask(mask: ImageLike, size: Size, fit: Fit | None = "crop", name: str = "mask") -> Tensor:
    """Read any mask at a size, cut and padded like the image of :func:`read_picture`.

    Bars are 0, known.

    Args:
        mask: a path, a PIL image or an array of whole numbers, white = 1, repaint (see
            :func:`composer.pictures.open_mask`); or a tensor or array (H, W) of bool, or of
            floating point in [0, 1].
        size: (H, W).
        fit, name: as in :func:`read_picture`.

    Returns:
        (H, W) in [0, 1].
    """
    checked = checked_mask(mask, name)
    require_mask(checked, size, name, fit)
    pixels = mask_pixels(checked)
    return pixels if fit is None else fit_mask(pixels, size, fit)


def to_tensor(image: ImageLike, name: str = "image") -> Tensor:
    """Read any picture at its own size and channels, as (B, C, H, W) in [-1, 1].

    A tensor keeps its dtype; all else becomes float32.

    Raises:
        TypeError, ValueError, FileNotFoundError: it is not a picture, or has values out of range.
    """
    return scaled(*numbers_of(checked_image(image, name)))


def to_mask(mask: ImageLike, name: str = "mask") -> Tensor:
    """Read any mask at its own size, as float (H, W) in [0, 1], 1 = repaint; white = 1.

    Raises:
        TypeError, ValueError, FileNotFoundError: it is not a mask, or has values outside [0, 1].
    """
    return mask_pixels(checked_mask(mask, name))


def hold_image(image: ImageLike, name: str = "image", fit: Fit | None = None) -> Held:
    """Open a file, or copy a picture, for a plugin to keep; a tensor is kept itself.

    So a plugin's recipe holds the pixels, and later changes of the file or the PIL image do not
    affect it. A picture with ``fit`` keeps at most :data:`composer.pictures.MAX_FITTED` pixels.

    Raises:
        TypeError, ValueError, FileNotFoundError: as in :func:`to_tensor`.
    """
    return _kept(checked_image(image, name), image, fit)


def hold_mask(mask: ImageLike, name: str = "mask", fit: Fit | None = None) -> Held:
    """Open or copy a mask for a plugin to keep, like :func:`hold_image`."""
    return _kept(checked_mask(mask, name), mask, fit)


def shape_of(image: ImageLike, name: str = "image") -> _Shape:
    """(C, H, W) of any picture, as :func:`to_tensor` would return it."""
    held = opened_image(image, name)
    channels = held.shape[-3] if isinstance(held, Tensor) else len(held.getbands())
    return channels, *size_of(held)


def require_shape(image: ImageLike, shape: _Shape, owner: str, fit: Fit | None = None) -> None:
    """Raise a ValueError unless :func:`read_picture` can convert an image to the backend's shape.

    Raises:
        ValueError: the channels or, without ``fit``, the size differ; the message names ``owner``.
    """
    (c, h, w), (channels, height, width) = shape_of(image, owner), shape
    strict = isinstance(tensor_of_fractions(image), Tensor) or channels not in (1, 3)
    if c != channels and strict:
        raise ValueError(
            f"{owner} must have the backend's {channels} channel(s), got {c}. Convert it first."
        )
    if fit is None:
        _require_size((h, w), (height, width), owner)


def require_mask(
    mask: ImageLike,
    size: Size,
    owner: str,
    fit: Fit | None = None,
    image: ImageLike | None = None,
) -> None:
    """Raise a ValueError unless :func:`read_mask` can convert a mask to the backend's (H, W).

    Args:
        mask, size, owner, fit: as in :func:`require_shape`.
        image: the image of the mask. The two must have the same proportions, or the mask must have
            the backend's size; otherwise ``fit`` would cut them at different places.
    """
    h, w = size_of(opened_mask(mask, owner))
    if fit is None:
        _require_size((h, w), size, owner)
    if image is None or (h, w) == size:
        return
    _, height, width = shape_of(image)
    if not alike((h, w), (height, width)):
        raise ValueError(
            f"{owner} must have the proportions of its image, {height}x{width}, or be "
            f"{size[0]}x{size[1]}, got {h}x{w}. Draw it on the image."
        )


def _require_size(got: Size, size: Size, owner: str) -> None:
    if got != size:
        raise ValueError(
            f"{owner} must have the backend's size {size[0]}x{size[1]}, got {got[0]}x{got[1]}. "
            "Give fit='crop', 'pad' or 'stretch', or resize it first."
        )


def _kept(held: Held, given: ImageLike, fit: Fit | None) -> Held:
    if isinstance(held, Tensor):
        return held
    from composer.pictures import MAX_FITTED, bounded  # noqa: PLC0415, loads PIL

    kept = held if fit is None else bounded(held, MAX_FITTED)
    return kept.copy() if kept is given else kept


def to_pil(x: Tensor) -> list[Image.Image]:
    """(B, C, H, W) in [-1, 1] -> B PIL images; C = 1 is grey, 3 is RGB. Values are clipped."""
    from PIL import Image  # noqa: PLC0415, loads for a sixth of a second

    if floating(x, "to_pil: x").ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"to_pil: x must have the shape (B, 1 or 3, H, W), got {tuple(x.shape)}. Use the "
            "tensor itself."
        )
    arrays = to_pixels(x).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in arrays]


def to_pixels(x: Tensor) -> Tensor:
    """Convert values in [-1, 1] to uint8, 0 to 255; values outside are clipped."""
    return ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite.

    If the sum is finite, all values are; to test the sum is ten times faster.
    """
    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())
