"""The result of a sampling call."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from composer.arguments import integer
from composer.errors import shown
from composer.images import to_pil
from composer.recipes import Draft
from composer.registry import get_transform
from composer.requests import Each
from composer.stats import Stats
from composer.transforms import Transform
from composer.words import short_repr

if TYPE_CHECKING:
    from PIL import Image

_SHOWN, _WIDE = 112, 1024
"""Pixels of an image in a sheet, and of a sheet in a notebook."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Samples, with their seeds, cost and recipe.

    ``result[3]``, ``result[:4]`` and ``result[[5, 1]]`` select images and their seeds; recipe and
    stats remain those of the whole call. A notebook shows the images.

    Attributes:
        x: (B, C, H, W) in [-1, 1], up to the model's overshoot.
        seeds: one per image; image k depends on seeds[k] alone.
        stats: the cost of the call.
        draft: the recipe before it is written.
        views: the transforms that the plugins showed the images through.
        condition: as given to the call, with a list of one per seed as an Each.
    """

    x: Tensor
    seeds: tuple[int, ...]
    stats: Stats
    draft: Draft = field(repr=False)
    views: tuple[Transform, ...] = ()
    condition: Any = None

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> Result:
        """Select images by index, slice, list of indices, or mask (B,).

        Raises:
            TypeError: ``which`` is none of these.
            IndexError: there is no such image, or the mask has another length.
        """
        rows = np.arange(len(self))[_index(which)].reshape(-1).tolist()  # backward slices too
        condition = self.condition
        if isinstance(condition, Each):
            condition = Each([condition.conditions[row] for row in rows]) if rows else None
        seeds = tuple(self.seeds[row] for row in rows)
        return replace(self, x=self.x[rows], seeds=seeds, condition=condition)

    def __iter__(self) -> Iterator[Result]:
        """Iterate over the images, each as a Result."""
        return (self[k] for k in range(len(self)))

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The call as JSON: ``Sampler.from_recipe(recipe).sample(**composer.call_of(recipe))``
        repeats it. It is written on first access and records the arguments at the call.

        Raises:
            ValueError: it exceeds a limit of :mod:`composer.limits`, so that it could not be read.
        """
        return self.draft.written()

    @cached_property
    def images(self) -> list[Image.Image]:
        """The samples as PIL images, values outside [-1, 1] clipped."""
        return to_pil(self.x)

    def save(self, path: str | os.PathLike[str], size: int | None = None) -> list[Path]:
        """Save the images as files; PNG and WebP files carry the recipe and the seed.

        A recipe above a limit of :mod:`composer.limits` is left out, with a warning.

        Args:
            path: a folder for PNG files named by seed, such as 0007.png, made if missing; or, for
                one image, a file that ends in .png, .jpg, .jpeg or .webp. A file of the same name
                is replaced.
            size: pixels of the longer side; None for the image's own. Images of less than 64
                pixels are enlarged pixel by pixel, others smoothly.

        Returns:
            The paths of the files.

        Raises:
            TypeError, ValueError: path is no path, several images go to one file, or size is out of
                range.
            OSError: a file cannot be written.
        """
        from composer.saving import save_images  # noqa: PLC0415  # few results are saved

        try:
            recipe = self.recipe
        except ValueError as error:
            warnings.warn(f"save: the pictures carry no recipe. {error}", stacklevel=2)
            recipe = None
        return save_images(self.images, self.seeds, recipe, path, size)

    def sheet(
        self, columns: int = 8, scale: int | None = None, view: str | Transform = "identity"
    ) -> Image.Image:
        """Draw all images in one picture; each row begins with the index of its first image.

        Args:
            columns: images per row.
            scale: whole enlargement of each pixel; None for images of about a hundred pixels.
            view: a transform, or its name, to apply first.

        Raises:
            ValueError: the result has no images, or a number is out of range.
        """
        from composer.contact_sheet import contact_sheet  # noqa: PLC0415  # few are drawn

        if not self.seeds:
            raise ValueError("sheet: a result must have images to draw, got none. Select some.")
        columns, x = integer(columns, "sheet: columns", least=1), get_transform(view)(self.x)
        enlarged = max(1, _SHOWN // max(x.shape[-2:])) if scale is None else scale
        firsts = range(0, len(x), columns)
        labels = [str(k) if len(firsts) > 1 else "" for k in firsts]
        rows = {label: x[k : k + columns] for label, k in zip(labels, firsts, strict=True)}
        return contact_sheet(rows, integer(enlarged, "sheet: scale", least=1))

    def _repr_png_(self) -> bytes | None:
        """The first 64 images for a notebook; None if x cannot be a picture."""
        if not self.seeds or self.x.shape[1] not in (1, 3):
            return None
        picture, written = self[:64].sheet(), io.BytesIO()
        picture.thumbnail((_WIDE, 8 * _WIDE))
        picture.save(written, "PNG")
        return written.getvalue()

    def animate(
        self,
        path: str | Path,
        view: str | Transform | Sequence[str | Transform] | None = None,
        captions: Sequence[str] = (),
        fps: float = 30.0,
        hold: float = 1.0,
        move: float = 2.0,
        scale: int | None = None,
    ) -> Path:
        """Write a GIF or MP4 in which the images move to a view and back, in a loop.

        Args:
            path: ends in .gif, or in .mp4 with the extra ``video``.
            view: a transform or its name, or a list of them; None for each of :attr:`views`.
                Images without views shrink into the distance and return, which shows a hybrid.
            captions: one for the images and one for each view, shown while they stand still.
            fps: frames per second.
            hold: seconds that the images, and each view, stand still.
            move: seconds from the images to a view, and back.
            scale: whole enlargement of each pixel; None for a frame of 500 to 1000 pixels.

        Returns:
            The path.
        """
        from composer.animation import animate  # noqa: PLC0415  # few results are animated
        from composer.animation.film import Timing  # noqa: PLC0415

        if view is None:  # an identity, which returns x itself, does not move
            view = [v for v in self.views if v(self.x) is not self.x]
        views = view if isinstance(view, Sequence) and not isinstance(view, str) else [view]
        return animate(self.x, path, views, captions, Timing(fps, hold, move), scale)


def _index(which: Any) -> Any:
    """A slice as it is, an index or a list of indices or a mask as an array of numpy."""
    if isinstance(which, slice):
        return which
    try:
        chosen = np.asarray(which.cpu() if isinstance(which, Tensor) else which)
    except ValueError:  # lists of different lengths
        chosen = np.asarray(None)
    if isinstance(which, list | tuple) and not which:
        chosen = chosen.astype(int)
    if chosen.ndim > 1 or chosen.dtype.kind not in ("iub" if chosen.ndim else "iu"):
        raise TypeError(
            "Result: an index must be an integer, a slice, a list of integers or a mask of one "
            f"boolean per image, got {shown(which)}."
        )
    return chosen
