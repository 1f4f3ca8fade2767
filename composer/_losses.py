"""Losses of images, and their gradients."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from composer._once import once
from composer.errors import shown
from composer.latents import image_shape_of
from composer.protocols import Backend
from composer.transforms import Transform


class Loss(Protocol):
    """A differentiable function of images, lower is better."""

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W), about [-1, 1] -> (B,), each image by itself."""
        ...


def check_loss(loss: Loss, backend: Backend, owner: str) -> None:
    """Raise an error unless a loss gives one number per image and has a gradient.

    Raises:
        TypeError: it is no function.
        ValueError: it fails on a grey image of the backend's ``image_shape``, or has no gradient.
    """
    if not callable(loss) or isinstance(loss, type | Transform):
        raise TypeError(
            f"{owner}: loss must be a function from images to numbers, got {shown(loss)}."
        )

    shape = image_shape_of(backend)

    def examine() -> None:
        grey = torch.zeros(1, *shape, dtype=backend.dtype, device=backend.device)
        try:
            loss_gradient(loss, grey, owner)
        except ValueError:
            raise
        except Exception as error:  # the caller's function may raise anything
            raise ValueError(f"{owner}: loss failed on images of {shape}: {error}") from error

    once(examine, "loss", loss, shape, backend.dtype, backend.device)


def loss_gradient(loss: Loss, x: Tensor, owner: str, of: Tensor | None = None) -> Tensor:
    """The gradient of each image's loss(x) with respect to ``of`` (B, C, H, W).

    Args:
        x: images (B, C, H, W).
        of: what x was computed from, with ``requires_grad``; None for x itself.
    """
    with torch.enable_grad():
        if of is None:
            x = of = x.detach().requires_grad_()
        values = loss(x)
        if not isinstance(values, Tensor) or values.shape != (len(x),):
            what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"{owner}: loss must return a tensor of one number per image, of shape "
                f"({len(x)},), got {what}."
            )
        if not values.requires_grad:
            raise ValueError(
                f"{owner}: loss must have a gradient, got values without one. Compute them from "
                "the images with torch, without no_grad or detach."
            )
        # Requests that are answered in one call of the model share its graph.
        shared = of is not x
        return torch.autograd.grad(values.sum(), of, retain_graph=shared)[0]
