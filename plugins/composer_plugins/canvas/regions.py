"""Prompts by region of a canvas."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from composer import Backend, Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite, sequence
from composer.authoring import is_nested
from composer.errors import shown
from composer.images import ImageLike, hold_mask, read_mask

COLUMN = 64
"""Places across a region of ``Regions.row``; masks are resized to the canvas."""


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
        masks: tensors (H, W) in [0, 1], or paths, PIL images or arrays of grey pixels, white = 1;
            stretched to the canvas. At each place at least one must be above zero.
        conditions: one per mask.
    """

    masks: Sequence[ImageLike]
    conditions: Sequence[Any]

    def __post_init__(self) -> None:
        held = [hold_mask(mask, "Regions: mask") for mask in sequence(self.masks, "Regions: masks")]
        conditions = sequence(self.conditions, "Regions: conditions")
        if not held or len(held) != len(conditions):
            raise ValueError(
                f"Regions: conditions must be {len(held)}, one per mask and at least one, got "
                f"{len(conditions)}."
            )
        for condition in conditions:
            if condition is None or is_nested(condition):
                raise TypeError(
                    f"Regions: a condition must be one of the model's, got {shown(condition)}. For "
                    "plugins in place of conditions use Components(Masks(...), conditions)."
                )
        object.__setattr__(self, "masks", tuple(held))

    @classmethod
    def row(cls, conditions: Sequence[Any], soft: float = 0.5, wrap: bool = False) -> Self:
        """Regions of equal width from left to right.

        Args:
            conditions: one per region.
            soft: width of the borders, over which one region fades into the next linearly, as a
                share of a region's width, 0 to 1.
            wrap: whether the last region fades into the first.
        """
        if not 0 <= finite(soft, "Regions: soft") <= 1:
            raise ValueError(f"Regions: soft must be in [0, 1], got {shown(soft)}.")
        count = len(sequence(conditions, "Regions: conditions"))
        places = (torch.arange(count * COLUMN) + 0.5) / COLUMN
        masks = []
        for k in range(count):
            away = places - (k + 0.5)
            if wrap:
                away = (away + count / 2) % count - count / 2
            elif k in (0, count - 1):  # to the end of the canvas
                away = away.clamp(min=0) if k == 0 else away.clamp(max=0)
            if count == 1:
                away = torch.zeros_like(places)
            beyond = away.abs() - 0.5  # of the border between two regions
            hard = torch.where(beyond < 0, 1.0, 0.0)
            masks.append((0.5 - beyond / soft).clamp(0, 1)[None] if soft else hard[None])
        return cls(masks, conditions)

    @hookimpl
    def check(self, stack: Stack) -> None:
        layout = Layout(self, tuple(self.conditions))
        try:
            stack.backend.encode(layout)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Regions: the model must be a Canvas, got {type(stack.backend).__name__}. Use "
                "Canvas(backend, size), or Components(Masks(...), conditions)."
            ) from error
        layout.masks(stack.backend.shape[1:])

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        return (yield [request.fill(Layout(self, tuple(self.conditions)))])[0]


@dataclass(frozen=True)
class Layout:
    """The condition of a whole canvas: what :class:`Regions` asks.

    Attributes:
        regions: the plugin, which holds the masks.
        conditions: one per mask, as given or encoded.
    """

    regions: Regions
    conditions: tuple[Hashable, ...]

    def encoded(self, backend: Backend) -> Layout:
        """The same with conditions in a backend's terms."""
        return replace(self, conditions=tuple(backend.encode(c) for c in self.conditions))

    def masks(self, size: tuple[int, int]) -> Tensor:
        """The masks (N, H, W) at a size, in float64, divided by their sum.

        Raises:
            ValueError: somewhere all masks are zero.
        """
        read = [read_mask(mask, size, "stretch", "Regions: mask") for mask in self.regions.masks]
        masks = torch.stack(read).double()
        total = masks.sum(0)
        if (empty := total == 0).any():
            row, column = empty.nonzero()[0].tolist()
            raise ValueError(
                "Regions: at each place one mask must be above zero, got none at row "
                f"{row}, column {column} of {size[0]}x{size[1]}. Add a mask for the rest."
            )
        return masks / total
