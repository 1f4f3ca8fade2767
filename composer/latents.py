"""Models whose loop runs on latents in place of pixels, and the way between the two.

A latent backend states ``image_shape`` (C, H, W) beside the ``shape`` of its latents. It has
``encode_image(x)``, images (B, C, H, W) in [-1, 1] to latents (B, *shape), and ``decode(z)``, the
way back. It decodes in its ``finish`` hook, after those of all plugins; a plugin that wraps
``finish`` sees the images after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

_Shape = tuple[int, int, int]
"""(C, H, W)."""


class _HasShape(Protocol):
    """What this module needs of a backend."""

    @property
    def shape(self) -> _Shape: ...


class _Coder(Protocol):
    """What a latent backend has beyond others."""

    def encode_image(self, x: Tensor, /) -> Tensor: ...
    def decode(self, z: Tensor, /) -> Tensor: ...


def image_shape_of(backend: _HasShape) -> _Shape:
    """(C, H, W) of finished images: the optional attribute ``image_shape`` of a latent model, or
    ``shape``."""
    shape: _Shape = getattr(backend, "image_shape", backend.shape)
    return shape


def is_latent(backend: _HasShape | None) -> bool:
    """Whether a backend's loop runs on latents: its ``image_shape`` is not its ``shape``. False for
    None, the backend of a request outside of a run, whose x has pixels."""
    return backend is not None and image_shape_of(backend) != backend.shape


def to_latents(backend: _HasShape | None, images: Tensor) -> Tensor:
    """Encode images (B, C, H, W) in [-1, 1] for the loop; a model of pixels gets them unchanged."""
    return cast(_Coder, backend).encode_image(images) if is_latent(backend) else images


def to_images(backend: _HasShape | None, x: Tensor) -> Tensor:
    """Decode the x of a run, (B, *shape), to images (B, C, H, W). The x of a model of pixels, and
    one that is decoded already, is returned unchanged; so is that of a request outside of a run,
    whose backend is None."""
    if backend is None or x.shape[1:] == image_shape_of(backend):
        return x
    return cast(_Coder, backend).decode(x)


def in_pixels(backend: _HasShape, change: Callable[..., Tensor], *z0: Tensor) -> Tensor:
    """Change clean latents as images, with the encoder E and the decoder D of a latent model:

        z0' = E(change(D(z0_1), ..., D(z0_N))) + mean_i d_i,  d_i = z0_i - E(D(z0_i)).

    The sum d_i keeps what the round trip through pixels loses, so the identity changes nothing. It
    costs N decoded and N + 1 encoded images. Over a model of pixels z0' is change(z0_1, ...).

    Chang et al. 2025, "LookingGlass", arXiv 2504.08902.

    Args:
        backend: the model.
        change: N tensors of images (B, C, H, W) -> one of them.
        z0: N clean latents (B, *shape).
    """
    if not is_latent(backend):
        return change(*z0)
    latents = torch.cat(z0)
    images = to_images(backend, latents)
    lost = latents - to_latents(backend, images)
    changed = to_latents(backend, change(*images.chunk(len(z0))))
    residual: Tensor = lost.unflatten(0, (len(z0), -1)).mean(0)
    return changed + residual


def require_coder(backend: _HasShape, owner: str) -> None:
    """Require that a latent backend encodes images.

    Raises:
        ValueError: it does not; ``owner`` says who needs it.
    """
    if is_latent(backend) and not hasattr(backend, "encode_image"):
        raise ValueError(
            f"{owner}: {type(backend).__name__} works on latents and must have encode_image, got "
            "none. Give it one, or use a model of pixels."
        )
