"""Images and masks at the library's border: checked once, tensors in [-1, 1] from there on."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ImageLike = Image.Image | Tensor

_MODES = ("1", "L", "P", "RGB", "RGBA")  # others have other ranges, which a cast would clip


def to_pil(x: Tensor) -> list[Image.Image]:
    """(B, C, H, W) in [-1, 1] -> B PIL images; C = 1 is grey, 3 is RGB. Values are clipped."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"PIL images need 1 or 3 channels, got a tensor of shape {tuple(x.shape)}; "
            "use the tensor itself"
        )
    arrays = to_pixels(x).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in arrays]


def to_pixels(x: Tensor) -> Tensor:
    """Values in [-1, 1], others clipped, as an image file holds them: uint8, 0 to 255."""
    return ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_tensor(image: ImageLike, name: str = "image") -> Tensor:
    """A PIL image or a tensor as float (B, C, H, W) in [-1, 1].

    Raises:
        TypeError: neither a PIL image nor a floating-point tensor.
        ValueError: a shape, or values, that no image has.
    """
    if isinstance(image, Image.Image):
        if image.mode not in _MODES:
            raise TypeError(
                f"{name} is a PIL image of mode {image.mode}; convert('L') or convert('RGB') it"
            )
        grey = image.mode in ("1", "L")
        array = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32)
        pixels = torch.from_numpy(array.copy())
        return (pixels[None] if grey else pixels.permute(2, 0, 1))[None] / 127.5 - 1
    if not isinstance(image, Tensor) or not image.is_floating_point():
        what = f"a tensor of {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"{name} must be a PIL image or a floating-point tensor in [-1, 1], got {what}"
        )
    if image.ndim not in (3, 4):
        raise ValueError(
            f"{name} must have the shape (C, H, W) or (B, C, H, W), got {tuple(image.shape)}"
        )
    if not image.numel():
        raise ValueError(f"{name} holds nothing: its shape is {tuple(image.shape)}; give an image")
    low, high = image.aminmax()
    # A little overshoot is what a sampler returns, and such images are fed back in.
    if not bool(torch.isfinite(low) & torch.isfinite(high)) or low < -2 or high > 2:
        raise ValueError(
            f"{name} must lie in [-1, 1], got values from {low:g} to {high:g}; "
            "scale it, for example by x / 127.5 - 1"
        )
    return image if image.ndim == 4 else image[None]


def all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite.

    Their sum then is finite too, which is a tenth of the work to see; unless it overflows.
    """
    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())


def to_mask(mask: ImageLike) -> Tensor:
    """A mask as float (H, W) in [0, 1], 1 = repaint; a PIL image is read as grey, white = 1.

    Raises:
        TypeError: neither a PIL image nor a tensor of bool or floating point.
        ValueError: another shape, or values outside [0, 1].
    """
    if isinstance(mask, Image.Image):
        if mask.mode not in _MODES:
            raise TypeError(f"mask is a PIL image of mode {mask.mode}; convert('L') it")
        return torch.from_numpy(np.asarray(mask.convert("L"), dtype=np.float32) / 255)
    if not isinstance(mask, Tensor) or not (mask.is_floating_point() or mask.dtype == torch.bool):
        what = f"a tensor of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a PIL image or a float or bool tensor (H, W), got {what}")
    if mask.ndim != 2:
        raise ValueError(f"mask must have the shape (H, W), got {tuple(mask.shape)}")
    mask = mask.float()
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError(
            f"mask must lie in [0, 1], 1 = repaint, got values from {mask.min():g} to "
            f"{mask.max():g}"
        )
    return mask


def require_shape(image: Tensor, shape: tuple[int, int, int], owner: str) -> None:
    """Refuse images (B, C, H, W) that are not of the backend's (C, H, W)."""
    if tuple(image.shape[1:]) != shape:
        c, h, w = shape
        raise ValueError(
            f"{owner}: image has {image.shape[1]} channel(s) of {image.shape[2]}x{image.shape[3]} "
            f"but the backend makes {c} channel(s) of {h}x{w}; convert or resize it first"
        )


def require_mask(mask: Tensor, shape: tuple[int, int, int], owner: str) -> None:
    """Refuse a mask (H, W) that is not of the backend's (C, H, W)."""
    if mask.shape != shape[1:]:
        raise ValueError(
            f"{owner}: mask is {mask.shape[0]}x{mask.shape[1]} but the backend makes "
            f"{shape[1]}x{shape[2]}; resize the mask first"
        )
