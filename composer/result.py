"""What a sampling call returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from composer.images import to_pil
from composer.recipes import Draft
from composer.registry import get_transform
from composer.stats import Stats
from composer.transforms import Transform

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Result:
    """Samples and how they came to be.

    Attributes:
        x: (B, C, H, W) in [-1, 1], up to the model's overshoot.
        seeds: image k is a function of seeds[k].
        stats: what it cost.
        draft: the recipe before it is written.
        views: the transforms that the plugins showed the images through.
        condition: as given to the call.
    """

    x: Tensor
    seeds: tuple[int, ...]
    stats: Stats
    draft: Draft = field(repr=False)
    views: tuple[Transform, ...] = ()
    condition: Any = None

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The call as JSON: ``Sampler.from_recipe(recipe).sample(**composer.call_of(recipe))``
        repeats it. Written when it is first asked for, of what the arguments were at the call."""
        return self.draft.written()

    @cached_property
    def images(self) -> list[Image.Image]:
        """The samples as PIL images, values outside [-1, 1] clipped."""
        return to_pil(self.x)

    def animate(
        self,
        path: str | Path,
        view: str | Transform | None = None,
        captions: Sequence[str] = (),
        fps: float = 30.0,
        hold: float = 1.0,
        move: float = 2.0,
        scale: int | None = None,
    ) -> Path:
        """Write a GIF or MP4 in which the images move to a view and back, over and over.

        Args:
            path: ends in .gif, or in .mp4 with the extra ``video``.
            view: a transform or its name; None for each of :attr:`views` in turn. Images without
                views go far away and come back, which is how a hybrid reads differently.
            captions: one for the images and one for each view, shown while they stand still.
            fps: frames a second.
            hold: seconds that the images, and each view, stand still.
            move: seconds from the images to a view, and back.
            scale: whole enlargement of each pixel; None for a frame of 500 to 1000 pixels.

        Returns:
            The path.
        """
        from composer.animation import animate  # noqa: PLC0415  # few results are animated
        from composer.animation.film import Timing  # noqa: PLC0415

        if view is None:  # an identity, which returns x itself, has no way to go
            views = [v for v in self.views if v(self.x) is not self.x]
        else:
            views = [get_transform(view)]
        return animate(self.x, path, views, captions, Timing(fps, hold, move), scale)
