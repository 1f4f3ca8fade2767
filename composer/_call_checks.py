"""Checks of the arguments of ``sample``, ``stream`` and ``denoise``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from composer.arguments import finite, integer, number_of, sequence
from composer.errors import shown
from composer.images import all_finite
from composer.plugin import SETS_START, declared, with_nested
from composer.protocols import Backend, Stack


def checked_images(x: object, backend: Backend) -> Tensor:
    """A caller's images (B, C, H, W), in the device and dtype of the loop."""
    if (
        not isinstance(x, Tensor)
        or x.ndim != 4
        or len(x) == 0
        or tuple(x.shape[1:]) != backend.shape
        or not x.is_floating_point()
    ):
        what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        sizes = ", ".join(map(str, backend.shape))
        raise ValueError(
            f"Sampler: x must be a floating-point tensor of shape (B, {sizes}), got {what}. Give "
            "noised images, for example backend.schedule.add_noise(x0, noise, t)."
        )
    if not all_finite(x):
        raise ValueError("Sampler: x must be finite, got NaN or Inf. Check what made it.")
    # The same object if it can be, so that estimates of two calls are about the same image.
    return (x.detach() if x.requires_grad else x).to(backend.device, backend.dtype)


def checked_place(stack: Stack, x: Tensor | None, t: Any) -> int:
    """The index in the plan of the time at which a call begins; t None is the first.

    Raises:
        ValueError: the time is not in the plan, or is its last; the message names the nearest.
    """
    if t is None:
        return 0
    if x is None:
        raise ValueError("Sampler: t is the time of x, and x is None. Give both, or neither.")
    for plugin in with_nested(stack.plugins):
        if declared(plugin, "unique") == SETS_START:
            raise ValueError(
                f"Sampler: x at a time and {type(plugin).__name__} both {SETS_START}. Keep one of "
                "them."
            )
        if declared(plugin, "follows_several"):
            raise ValueError(
                f"Sampler: x at a time is one image a seed, and {type(plugin).__name__} follows "
                "several from their first noise. Leave t None."
            )
    time, times = finite(number_of(t, "t"), "t"), stack.times
    nearest = sorted(range(len(times)), key=lambda place: abs(times[place] - time))[:2]
    if abs(times[nearest[0]] - time) > 1e-6 * (max(times) - min(times)):
        near = " and ".join(f"{times[place]:g}" for place in sorted(nearest))
        raise ValueError(
            f"Sampler: t must be a time of the plan, got {time:g}. The nearest are {near}."
        )
    if nearest[0] == len(times) - 1:
        raise ValueError(
            f"Sampler: t must be a time that a step leaves, got the last, {time:g}. Give an "
            "earlier one of sampler.times."
        )
    return nearest[0]


def checked_times(t: Any, images: int) -> float | list[float]:
    """The time of all images as a number, or one per image; one in a tensor (1,) is of all."""
    dims = getattr(t, "ndim", 0)
    given = t.tolist() if dims else [number_of(t, "t")]
    if dims > 1 or len(given) not in (1, images):
        shape = tuple(t.shape)
        raise ValueError(
            f"Sampler: t must be one time, or one for each of {images} images, got {shape}. Give a "
            "number or a tensor (B,)."
        )
    times = [finite(time, "t") for time in given]
    return times if dims and len(times) == images else times[0]


def check_callback(callback: object) -> None:
    """Raise a TypeError unless a ``callback`` is None or can be called."""
    if callback is not None and not callable(callback):
        raise TypeError(
            f"Sampler: callback must be a function of one state, or None, got {shown(callback)}."
        )


def check_returns_nothing(answer: object) -> None:
    """Raise a TypeError if a ``callback`` returned something, which the loop would ignore."""
    if answer is not None:
        raise TypeError(
            f"Sampler: callback must return None, got {type(answer).__name__}. To change the run, "
            "set state.x or call state.stop()."
        )


def checked_origin(origin: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The number of the seed of each of ``count`` images."""
    if origin is None:
        return tuple(range(count))
    seeds = tuple(integer(k, "denoise: origin", 0) for k in sequence(origin, "denoise: origin"))
    if len(seeds) != count:
        raise ValueError(f"denoise: origin must be {count}, one per image, got {len(seeds)}.")
    return seeds
