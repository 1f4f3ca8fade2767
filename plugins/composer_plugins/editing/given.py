"""The image that a plugin is given, and its mask: kept, resized and checked in one way.

A plugin of them has fields ``image`` and ``fit``, and names the field of its mask if it has one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from torch import Tensor

from composer import Backend
from composer.authoring import image_shape_of, require_coder, resized_image, resized_mask
from composer.images import (
    Fit,
    Held,
    ImageLike,
    Size,
    check_fit,
    hold_image,
    hold_mask,
    require_mask,
    require_shape,
)


class Given(Protocol):
    """A frozen dataclass with an image."""

    @property
    def image(self) -> ImageLike: ...

    @property
    def fit(self) -> Fit | None: ...


T = TypeVar("T", bound=Given)


def hold_given(plugin: Given, mask: str = "") -> None:
    """Open the files of a new plugin and copy its pictures.

    Args:
        plugin: in its ``__post_init__``.
        mask: the field of its mask.

    Raises:
        TypeError, ValueError, FileNotFoundError: one is no picture, or ``fit`` is unknown.
    """
    owner = type(plugin).__name__
    held = {"image": hold_image(plugin.image, f"{owner}: image", plugin.fit)}
    if mask:
        held[mask] = hold_mask(getattr(plugin, mask), f"{owner}: {mask}", plugin.fit)
    for name, value in held.items():
        object.__setattr__(plugin, name, value)
    check_fit(plugin.fit, owner)


def resized_given(plugin: T, height: int, width: int, mask: str = "") -> T:
    """The plugin for images of another size; itself if they have its size, or if it fits them.

    A plugin is resized once to each size, because a cascade of it is often built again.

    Raises:
        ValueError: the proportions differ.
    """
    fields = ("image", *([mask] if mask else []))
    given = {name: getattr(plugin, name) for name in fields}
    if plugin.fit is not None or all(_size(one) == (height, width) for one in given.values()):
        return plugin
    written = tuple(_writes(one) for one in given.values())
    made = _RESIZED.setdefault(plugin, {})
    if (height, width, *written) not in made:
        owner, size = type(plugin).__name__, (height, width)
        given["image"] = resized_image(given["image"], *size, f"{owner}: image")
        if mask:
            given[mask] = resized_mask(given[mask], *size, f"{owner}: {mask}")
        made[height, width, *written] = replace(cast(Any, plugin), **given)
    return cast(T, made[height, width, *written])


def check_given(plugin: Given, backend: Backend, mask: str = "") -> None:
    """Raise a ValueError unless a backend makes images of the size and the channels of the image.

    A latent backend must encode and decode images.
    """
    owner = type(plugin).__name__
    require_coder(backend, owner)
    shape = image_shape_of(backend)
    require_shape(plugin.image, shape, f"{owner}: image", plugin.fit)
    if mask:
        given = getattr(plugin, mask)
        require_mask(given, shape[1:], f"{owner}: {mask}", plugin.fit, plugin.image)


def _size(held: Held) -> Size:
    if isinstance(held, Tensor):
        return held.shape[-2], held.shape[-1]
    return held.height, held.width


def _writes(held: Held) -> int:
    """How often a tensor was written into; inference mode does not count it."""
    return held._version if isinstance(held, Tensor) and not held.is_inference() else 0


_RESIZED: WeakKeyDictionary[Given, dict[tuple[int, ...], Given]] = WeakKeyDictionary()
"""{plugin: {(height, width, writes into its tensors): the same at that size}}."""
