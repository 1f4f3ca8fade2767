"""Models whose loop runs on latents in place of pixels, and the way between the two.

A latent backend states ``image_shape`` (C, H, W) beside the ``shape`` of its latents. It has
``encode_image(x)``, images (B, C, H, W) in [-1, 1] to latents (B, *shape), and ``decode(z)``, the
way back. It decodes in its ``finish`` hook, after those of all plugins; a plugin that wraps
``finish`` sees the images after it.
"""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor

_Shape = tuple[int, int, int]
"""(C, H, W)."""


class _HasShape(Protocol):
    """A backend, as far as this page is concerned."""

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


def is_latent(backend: _HasShape) -> bool:
    """Whether the loop of a backend runs on latents: whether ``image_shape`` is not ``shape``."""
    return image_shape_of(backend) != backend.shape


def to_latents(backend: _HasShape, images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] as the loop has them: encoded, or on pixels as they are."""
    return cast(_Coder, backend).encode_image(images) if is_latent(backend) else images


def to_images(backend: _HasShape, x: Tensor) -> Tensor:
    """What the loop has (B, *shape) as images (B, C, H, W): decoded; as it is on pixels, and where
    the end of a run has decoded it."""
    return cast(_Coder, backend).decode(x) if x.shape[1:] != image_shape_of(backend) else x


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
