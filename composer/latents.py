"""Models whose loop runs on latents in place of pixels, and the way between the two.

A latent backend states ``image_shape`` (C, H, W) beside the ``shape`` of its latents. It has
``encode_image(x)``, images (B, C, H, W) in [-1, 1] to latents (B, *shape), and ``decode(z)``, the
way back. It decodes in its ``finish`` hook, after those of all plugins; a plugin that wraps
``finish`` sees the images after it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from composer.plugin import declared, with_nested
from composer.protocols import Backend, Stack, image_shape_of


def is_latent(backend: Backend) -> bool:
    """Whether the loop of a backend runs on latents: whether ``image_shape`` is not ``shape``."""
    return image_shape_of(backend) != tuple(backend.shape)


def to_latents(backend: Backend, images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] as the loop has them: encoded, or on pixels as they are."""
    return _coder(backend).encode_image(images) if is_latent(backend) else images


def to_images(backend: Backend, x: Tensor) -> Tensor:
    """What the loop has (B, *shape) as images (B, C, H, W): decoded, or on pixels as it is."""
    return _coder(backend).decode(x) if is_latent(backend) else x


def require_coder(backend: Backend, owner: str) -> None:
    """Require that a latent backend encodes images.

    Raises:
        ValueError: it does not; ``owner`` says who needs it.
    """
    if is_latent(backend) and not hasattr(backend, "encode_image"):
        raise ValueError(
            f"{owner}: {type(backend).__name__} works on latents and must have encode_image, got "
            "none. Give it one, or use a model of pixels."
        )


def check_pixels(stack: Stack) -> None:
    """Raise a ValueError for a plugin of pixels in a stack over latents."""
    if not is_latent(stack.backend):
        return
    for plugin in with_nested(stack.plugins):
        if declared(plugin, "needs_pixels"):
            instead = declared(plugin, "over_latents")
            mend = f"Use {instead} in its place" if instead else "Remove it"
            raise ValueError(
                f"{type(plugin).__name__} works on pixels and {type(stack.backend).__name__} on "
                f"latents; a view or a filter does not commute with the decoder. {mend}, or in a "
                "Cascade run this stage as Stage(..., plain=True)."
            )


def _coder(backend: Backend) -> Any:
    """A latent backend, with the methods that pixel backends lack."""
    return backend
