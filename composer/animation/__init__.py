"""Animations of an image and its views: hold, move, hold, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from composer.animation.film import COLUMNS, FORMATS, Format, Picture, Shot, Timing
from composer.arguments import finite, floating, integer
from composer.errors import shown
from composer.images import all_finite
from composer.limits import MAX_PIXELS
from composer.registry import get_transform
from composer.transforms import Transform
from composer.writing import require_writable, write_atomically

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Timing", "animate", "still"]

_WIDTH_OF_ONE, _WIDTH = 512, 1024
"""Pixels of an image and of a frame: the goals of ``scale=None``."""


def animate(
    x: Tensor,
    path: str | Path,
    views: Sequence[str | Transform],
    captions: Sequence[str] = (),
    timing: Timing | None = None,
    scale: int | None = None,
) -> Path:
    """Write a GIF or MP4 that moves from the images to each view and back.

    Args:
        x: images (B, C, H, W) in [-1, 1], shown side by side.
        views: transforms or their names, shown in turn; none for images that shrink into the
            distance, which suits hybrids.
        timing: speeds; None for the defaults.
        path, captions, scale: as for :meth:`composer.Result.animate`.

    Raises:
        ValueError, TypeError, ImportError, OSError: an argument is wrong, or the file cannot be
            written; raised before any work.
    """
    timing, target = timing or Timing(), Path(path)
    form = _checked_format(target, timing)
    x = _checked_images(x)
    seen = _checked_views(views, x)
    captions = _checked_captions(captions, 1 + max(1, len(seen)))
    scale = _checked_scale(scale, x)
    pictures = _pictures(x, seen, captions, scale)
    film = [shot for picture in pictures for shot in _there_and_back(picture, timing)]
    write_atomically(target, lambda unfinished: form.write(film, unfinished, timing.fps))
    return target


def still(
    x: Tensor, view: str | Transform | None, share: float, scale: int | None = None
) -> Image.Image:
    """One frame of an animation.

    Args:
        x, scale: as for :func:`animate`.
        view: a transform or its name; None for images that shrink into the distance.
        share: of the way, from 0, the images themselves, to 1, their view.

    Raises:
        ValueError, TypeError: an argument is wrong.
    """
    x = _checked_images(x)
    if not 0 <= finite(share, "still: share") <= 1:
        raise ValueError(f"still: share must be from 0 to 1, got {shown(share)}.")
    seen = [] if view is None else _checked_views([view], x)
    return _pictures(x, seen, (), _checked_scale(scale, x))[0](share)


def _pictures(
    x: Tensor, views: Sequence[Transform], captions: Sequence[str], scale: int
) -> list[Picture]:
    """The pictures of the way to each view, or into the distance."""
    from composer.animation.drawing import captioned, going_away, moving  # noqa: PLC0415, loads PIL

    pictures = [moving(x, view, scale) for view in views] or [going_away(x, scale)]
    if not captions:
        return pictures
    return [captioned(p, captions[0], c) for p, c in zip(pictures, captions[1:], strict=True)]


def _there_and_back(picture: Picture, timing: Timing) -> Iterator[Shot]:
    shares = timing.shares()
    yield Shot(picture, 0.0, timing.hold)
    yield from (Shot(picture, share, 1 / timing.fps) for share in shares)
    yield Shot(picture, 1.0, timing.hold)
    yield from (Shot(picture, share, 1 / timing.fps) for share in reversed(shares))


def _checked_format(target: Path, timing: Timing) -> Format:
    form = FORMATS.get(target.suffix.lower())
    if form is None:
        raise ValueError(f"animate: path must end in .gif or .mp4, got {str(target)!r}.")
    if not target.parent.is_dir():
        raise ValueError(
            f"animate: the folder {str(target.parent)!r} does not exist. Make it first."
        )
    form.check(timing)
    require_writable(target)
    return form


def _checked_images(x: Tensor) -> Tensor:
    if floating(x, "animate: images").ndim != 4 or x.numel() == 0 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"animate: images must have the shape (B, 1 or 3, H, W), got {tuple(x.shape)}."
        )
    if not all_finite(x):
        raise ValueError("animate: images must be finite, got NaN or Inf. Check what made them.")
    return x.detach().float().cpu()


def _checked_scale(scale: int | None, x: Tensor) -> int:
    """The given enlargement, or the one that fits; raise a ValueError above MAX_PIXELS."""
    columns, rows = min(len(x), COLUMNS), -(-len(x) // COLUMNS)
    height, width = x.shape[-2:]
    if scale is None:
        return max(1, min(_WIDTH_OF_ONE // width, _WIDTH // (columns * width)))
    scale = integer(scale, "animate: scale", least=1)
    if columns * width * rows * height * scale**2 > MAX_PIXELS:
        raise ValueError(
            f"animate: scale={scale} makes frames of more than {MAX_PIXELS} pixels. Lower it."
        )
    return scale


def _checked_views(views: Sequence[str | Transform], x: Tensor) -> list[Transform]:
    if not isinstance(views, Sequence) or isinstance(views, str):
        raise TypeError(f"animate: views must be a list of transforms, got {shown(views)}.")
    height, width = x.shape[-2:]
    seen = []
    for given in views:
        view = get_transform(given)
        if not view.accepts(height, width):
            raise ValueError(f"animate: {view!r} accepts {view.sizes}, got {height}x{width}.")
        seen.append(view)
    return seen


def _checked_captions(captions: Sequence[str], count: int) -> Sequence[str]:
    listed = isinstance(captions, Sequence) and not isinstance(captions, str)
    if not listed or not all(isinstance(caption, str) for caption in captions):
        raise TypeError(f"animate: captions must be a list of strings, got {shown(captions)}.")
    if captions and len(captions) != count:
        raise ValueError(
            f"animate: captions must be {count}, one for the image and one for each view, "
            f"got {len(captions)}."
        )
    return captions
