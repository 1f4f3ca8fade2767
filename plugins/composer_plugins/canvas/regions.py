"""Prompts by region of a canvas."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from composer import Backend, Each, Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite, interval, sequence, within
from composer.authoring import is_nested
from composer.errors import shown
from composer.images import ImageLike, hold_mask, read_mask
from composer_plugins.canvas.bootstrapping import bootstrapped


@dataclass(frozen=True, eq=False)
class Regions(Plugin):
    """Each region of a canvas follows its own condition: sum_i m_i f(x, condition_i).

    The masks m_i are divided by their sum, so the law of composition holds. Soft masks let the
    regions flow into one another. A crop asks the conditions of the regions that it shows, one row
    each, and no others; that is why a :class:`~.backend.Canvas` is needed. Over other models, and
    for plugins in place of conditions, use ``Components(Masks(...), conditions)``.

    Bar-Tal et al. 2023, "MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation",
    arXiv 2302.08113, section 4.2.

    Args:
        conditions: one per region; an Each in place of one has its own for each seed.
        masks: one per condition: tensors (H, W) in [0, 1], or paths, PIL images or arrays of grey
            pixels, white = 1; stretched to the canvas. At each place at least one must be above
            zero. None for regions of equal width from left to right.
        soft: width of the borders between these, over which one fades into the next linearly, as a
            share of a region's width, 0 to 1. On a canvas that wraps, the last fades into the
            first.
        bootstrap: noise levels (low, high) within which each region sees a background of one random
            colour outside of its mask, so that its object is laid out inside; None for none. The
            paper takes the first fifth of the steps, about (0.8, 1). There each region costs a row
            of every crop, and another under guidance.
    """

    conditions: Sequence[Any]
    masks: Sequence[ImageLike] | None = None
    soft: float = 0.5
    bootstrap: Sequence[float] | None = None
    _kept: dict[Hashable, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        conditions = sequence(self.conditions, "Regions: conditions")
        for condition in conditions:
            if condition is None or is_nested(condition):
                raise TypeError(
                    f"Regions: a condition must be one of the model's, got {shown(condition)}. For "
                    "plugins in place of conditions use Components(Masks(...), conditions)."
                )
        if not 0 <= finite(self.soft, "Regions: soft") <= 1:
            raise ValueError(f"Regions: soft must be in [0, 1], got {shown(self.soft)}.")
        if self.bootstrap is not None:
            interval(self.bootstrap, "Regions: bootstrap")
        if not conditions:
            raise ValueError("Regions: conditions must be one per region, got none.")
        seeds = {len(c) for c in conditions if isinstance(c, Each)}
        if len(seeds) > 1:
            raise ValueError(
                f"Regions: conditions per seed must be equally many in each region, got "
                f"{sorted(seeds)}."
            )
        if self.masks is None:
            return
        masks = sequence(self.masks, "Regions: masks")
        if len(masks) != len(conditions):
            raise ValueError(
                f"Regions: masks must be {len(conditions)}, one per condition, got {len(masks)}."
            )
        held = tuple(hold_mask(mask, "Regions: mask") for mask in masks)
        object.__setattr__(self, "masks", held)

    @hookimpl
    def check(self, stack: Stack) -> None:
        layout = self._layouts[0]
        try:
            encoded = stack.backend.encode(layout)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Regions: the model must be a Canvas, got {type(stack.backend).__name__}. Use "
                "Canvas(backend, size), or Components(Masks(...), conditions)."
            ) from error
        if self.bootstrap is not None and not isinstance(encoded, Layout):
            raise ValueError(
                f"Regions: with bootstrap the model must be a Canvas, got one inside of "
                f"{type(stack.backend).__name__}. Put the Canvas around it."
            )
        layout.masks(stack.backend.shape[1:])

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        layouts = self._layouts
        if self.bootstrap is not None and within(request.noise_level, self.bootstrap):
            return (yield from bootstrapped(request, self.conditions, self._masks(request)))
        return (yield [request.fill(Each(layouts) if len(layouts) > 1 else layouts[0])])[0]

    def _masks(self, request: Request) -> Tensor:
        """The masks (N, H, W) of a request's canvas, kept for the next step."""
        layout, size = self._layouts[0], request.x.shape[-2:]
        if request.backend is not None:
            layout = request.backend.encode(layout)
        if (size, layout.wraps) not in self._kept:
            self._kept.clear()
            self._kept[size, layout.wraps] = layout.masks(size)
        return self._kept[size, layout.wraps]

    @cached_property
    def _layouts(self) -> list[Layout]:
        """One for all seeds, or one per seed if a region has a condition per seed."""
        seeds = next((len(c) for c in self.conditions if isinstance(c, Each)), 1)
        return [Layout(self, tuple(_of_seed(c, k) for c in self.conditions)) for k in range(seeds)]


def _of_seed(condition: Any, k: int) -> Any:
    return condition.conditions[k] if isinstance(condition, Each) else condition


@dataclass(frozen=True)
class Layout:
    """The condition of a whole canvas: what :class:`Regions` asks.

    Attributes:
        regions: the plugin, which holds the masks.
        conditions: one per region, as given or encoded.
        wraps: whether the left side of the canvas continues at its right.
    """

    regions: Regions
    conditions: tuple[Hashable, ...]
    wraps: bool = False

    def encoded(self, backend: Backend, wraps: bool) -> Layout:
        """The same for a canvas of a backend: with conditions in its terms."""
        return replace(self, conditions=tuple(map(backend.encode, self.conditions)), wraps=wraps)

    def masks(self, size: Sequence[int]) -> Tensor:
        """The masks (N, H, W) of a canvas of size (H, W), in float64, divided by their sum.

        Raises:
            ValueError: somewhere all masks are zero.
        """
        given = self.regions.masks
        if given is None:
            row = columns(len(self.conditions), size[1], self.regions.soft, self.wraps)
            return row[:, None].expand(-1, *size)
        read = [read_mask(mask, (size[0], size[1]), "stretch", "Regions: mask") for mask in given]
        masks = torch.stack(read).double()
        total = masks.sum(0)
        if (empty := total == 0).any():
            place = ", column ".join(map(str, empty.nonzero()[0].tolist()))
            raise ValueError(
                f"Regions: at each place one mask must be above zero, got none at row {place} of "
                f"{size[0]}x{size[1]}. Add a mask for the rest."
            )
        return masks / total


def columns(count: int, width: int, soft: float, wraps: bool) -> Tensor:
    """Masks (count, width) of equal columns, which sum to one at each place.

    Each is a trapezium around the middle of its column. On a row that ends, the first and the last
    go on to the end.
    """
    places = (torch.arange(width, dtype=torch.float64) + 0.5) * count / width
    away = places - (torch.arange(count)[:, None] + 0.5)
    if wraps:
        away = (away + count / 2) % count - count / 2
    else:
        away[0].clamp_(min=0)
        away[-1].clamp_(max=0)
    masks = (0.5 - (away.abs() - 0.5) / max(soft, 1e-9)).clamp(0, 1)
    return masks / masks.sum(0)
