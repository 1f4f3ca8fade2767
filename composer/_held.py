"""The types in which callers give images and masks, their checks, and their numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import torch
from torch import Tensor

from composer.fitting import Size

if TYPE_CHECKING:
    from PIL import Image

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
# Unions of typing, which hold the name of a class of PIL: composer does not load PIL.
ImageLike: TypeAlias = Union[str, os.PathLike[str], "Image.Image", Array, Tensor]
"""A path, a PIL image of any mode, or an array of whole numbers: a picture, which is converted to
the model's channels. Or a floating-point tensor or array, (C, H, W) or (B, C, H, W) in [-1, 1],
which is used unchanged."""
Held: TypeAlias = Union["Image.Image", Tensor]
"""What plugins keep: an opened picture (see :mod:`composer.pictures`), or the tensor given."""


def opened_image(image: ImageLike, name: str) -> Held:
    """An opened picture or a tensor of the right type and shape; its values are not looked at."""
    tensor = tensor_of_fractions(image)
    if not isinstance(tensor, Tensor):
        from composer.pictures import open_picture  # noqa: PLC0415, loads PIL

        return open_picture(tensor, name)
    _require_fractions(tensor, name)
    if tensor.ndim not in (3, 4) or not tensor.numel():
        raise ValueError(
            f"{name} must have the shape (C, H, W) or (B, C, H, W), got {tuple(tensor.shape)}. "
            "Give pixels (H, W, C) as an array of uint8."
        )
    return tensor


def checked_image(image: ImageLike, name: str) -> Held:
    """:func:`opened_image`, with the values of a tensor in range."""
    held, advice = opened_image(image, name), "Scale it, for example by x / 127.5 - 1."
    # A sampler overshoots a little, and users feed its images back in.
    return _require_range(held, f"{name} must lie in [-1, 1]", (-2, 2), advice)


def opened_mask(mask: ImageLike, name: str) -> Held:
    """An opened mask or a tensor of the right type and shape; its values are not looked at."""
    tensor = tensor_of_fractions(mask)
    if not isinstance(tensor, Tensor):
        from composer.pictures import open_mask  # noqa: PLC0415, loads PIL

        return open_mask(tensor, name)
    if tensor.dtype != torch.bool:
        _require_fractions(tensor, name)
    if tensor.ndim != 2 or not tensor.numel():
        raise ValueError(
            f"{name} must have the shape (H, W), got {tuple(tensor.shape)}. Give one mask for all "
            "images."
        )
    return tensor


def checked_mask(mask: ImageLike, name: str) -> Held:
    """:func:`opened_mask`, with the values of a tensor in range."""
    held, advice = opened_mask(mask, name), "Scale it so that 1 means repaint."
    return _require_range(held, f"{name} must lie in [0, 1]", (0, 1), advice)


def _require_range(held: Held, rule: str, ends: tuple[float, float], advice: str) -> Held:
    if isinstance(held, Tensor):
        low, high = (held.float() if held.dtype == torch.bool else held).aminmax()
        if not (low >= ends[0] and high <= ends[1]):
            raise ValueError(f"{rule}, got values from {low:g} to {high:g}. {advice}")
    return held


def tensor_of_fractions(image: ImageLike) -> ImageLike:
    """Convert a floating-point array to a tensor; return anything else unchanged."""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        return torch.from_numpy(image.astype(np.float64 if image.itemsize > 4 else np.float32))
    return image


def _require_fractions(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name} must be a floating-point tensor, got one of {tensor.dtype}. Scale an image by "
            "x / 127.5 - 1, a mask by x / 255."
        )


def numbers_of(held: Held) -> tuple[Tensor, float]:
    """(B, C, H, W) and the number that is white: uint8 for 8-bit pictures, else in [-1, 1]."""
    if isinstance(held, Tensor):
        return held if held.ndim == 4 else held[None], 1.0
    if held.mode == "I;16":
        return torch.from_numpy(np.array(held, dtype=np.float32))[None, None] / 32767.5 - 1, 1.0
    pixels = torch.from_numpy(np.array(held)).reshape(held.height, held.width, -1)
    return pixels.permute(2, 0, 1)[None], 255.0


def scaled(numbers: Tensor, white: float) -> Tensor:
    """The numbers of :func:`numbers_of`, scaled to [-1, 1]."""
    return numbers / (white / 2) - 1 if numbers.dtype == torch.uint8 else numbers


def mask_pixels(held: Held) -> Tensor:
    """(H, W)."""
    if isinstance(held, Tensor):
        return held.float()
    pixels = torch.from_numpy(np.array(held, dtype=np.float32))
    return pixels / (65535 if held.mode == "I;16" else 255)


def size_of(held: Held) -> Size:
    if isinstance(held, Tensor):
        return held.shape[-2], held.shape[-1]
    return held.height, held.width
