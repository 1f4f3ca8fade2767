"""Animations of an image and its views: hold, move, hold, and back."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from composer.animation.film import FORMATS, PAPER, Format, Picture, Shot, Timing, grey
from composer.arguments import integer
from composer.images import all_finite, to_pil
from composer.limits import MAX_PIXELS
from composer.transforms import Transform

COLUMNS = 8
MARGIN = 4
WIDTH_OF_ONE, WIDTH = 512, 1024
"""In pixels, of an image and of a frame: what ``scale=None`` enlarges to, if it can."""
FAR = 12.0
"""How many times smaller an image without views grows."""
INK = 60
LINE = 28
"""Height of the line of captions."""


def animate(
    x: Tensor,
    path: str | Path,
    views: Sequence[Transform],
    captions: Sequence[str] = (),
    timing: Timing | None = None,
    scale: int | None = None,
) -> Path:
    """Write a GIF or MP4 that goes from the images to each view and back.

    Args:
        x: images (B, C, H, W) in [-1, 1], shown side by side.
        path: ends in .gif or .mp4; an existing file is replaced once the new one is complete.
        views: one after the other; if empty the images go far away instead, as hybrids want.
        captions: one for the image and one for each view (or for far away), or none.
        timing: speeds; None for the defaults.
        scale: whole enlargement of each pixel; None for a frame of about 500 to 1000 pixels.

    Raises:
        ValueError, TypeError, ImportError: it cannot be written; said before any work.
    """
    timing, target = _checked_timing(timing), _checked_path(path)
    form = _checked_format(target, timing)
    x = _checked_images(x)
    _check_views(views, x)
    captions = _checked_captions(captions, 1 + max(1, len(views)))
    scale = _checked_scale(scale, x)
    pictures = [_moving(x, view, scale) for view in views] or [_going_away(x, scale)]
    if captions:
        pictures = [
            _captioned(picture, captions[0], caption)
            for picture, caption in zip(pictures, captions[1:], strict=True)
        ]
    film = [shot for picture in pictures for shot in _there_and_back(picture, timing)]
    # In the same folder, so that it can take the file's place in one stroke.
    unfinished = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    _require_writable(unfinished, target)
    try:
        form.write(film, unfinished, timing.fps)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _moving(x: Tensor, view: Transform, scale: int) -> Picture:
    return lambda share: _side_by_side(view.frame(x, share), scale)


def _going_away(x: Tensor, scale: int) -> Picture:
    """The sheet of all images grows smaller, each second by the same factor."""
    near = _side_by_side(x, scale)

    def picture(share: float) -> Image.Image:
        if share == 0:
            return near
        size = [max(1, round(side * FAR**-share)) for side in near.size]
        canvas = Image.new(near.mode, near.size, grey(near.mode, PAPER))
        middle = ((near.width - size[0]) // 2, (near.height - size[1]) // 2)
        canvas.paste(near.resize((size[0], size[1]), Image.Resampling.LANCZOS), middle)
        return canvas

    return picture


def _captioned(picture: Picture, first: str, last: str) -> Picture:
    """A line below: the image's caption fades as it leaves, the view's appears as it arrives."""

    def with_line(share: float) -> Image.Image:
        image = picture(share)
        page = Image.new(image.mode, (image.width, image.height + LINE), grey(image.mode, PAPER))
        page.paste(image, (0, 0))
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
        for text, strength in ((first, 1 - 4 * share), (last, 4 * share - 3)):
            if strength > 0:
                ink = grey(image.mode, round(PAPER + strength * (INK - PAPER)))
                place = (image.width / 2, image.height + LINE / 2)
                draw.text(place, text, fill=ink, font=font, anchor="mm")
        return page

    return with_line


def _side_by_side(x: Tensor, scale: int) -> Image.Image:
    """Images (B, C, H, W), each pixel enlarged to a square, in rows of eight; one has no margin."""
    images = [
        i.resize((i.width * scale, i.height * scale), Image.Resampling.NEAREST) for i in to_pil(x)
    ]
    columns, rows = min(len(images), COLUMNS), -(-len(images) // COLUMNS)
    step = images[0].width + MARGIN, images[0].height + MARGIN
    size = columns * step[0] - MARGIN, rows * step[1] - MARGIN
    sheet = Image.new(images[0].mode, size, grey(images[0].mode, PAPER))
    for k, image in enumerate(images):
        sheet.paste(image, (k % COLUMNS * step[0], k // COLUMNS * step[1]))
    return sheet


def _there_and_back(picture: Picture, timing: Timing) -> Iterator[Shot]:
    shares = timing.shares()
    yield Shot(picture, 0.0, timing.hold)
    yield from (Shot(picture, share, 1 / timing.fps) for share in shares)
    yield Shot(picture, 1.0, timing.hold)
    yield from (Shot(picture, share, 1 / timing.fps) for share in reversed(shares))


def _checked_path(path: str | Path) -> Path:
    if not isinstance(path, str | Path):
        raise TypeError(f"animate: path must be a string or a Path, got {path!r}")
    return Path(path)


def _require_writable(unfinished: Path, target: Path) -> None:
    """Found out by writing: permissions alone do not tell."""
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        unfinished.touch()
    except OSError as error:
        raise ValueError(
            f"animate: cannot write {str(target)!r} ({error.strerror}); choose another path"
        ) from error


def _checked_format(target: Path, timing: Timing) -> Format:
    form = FORMATS.get(target.suffix.lower())
    if form is None:
        raise ValueError(f"animate: path must end in .gif or .mp4, got {str(target)!r}")
    if not target.parent.is_dir():
        raise ValueError(
            f"animate: the folder {str(target.parent)!r} does not exist; make it first"
        )
    form.check(timing)
    return form


def _checked_timing(timing: Timing | None) -> Timing:
    if not isinstance(timing, Timing | None):
        raise TypeError(f"animate: timing must be a Timing such as Timing(fps=20), got {timing!r}")
    return timing or Timing()


def _checked_images(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"animate: images must be a floating-point tensor, got {x!r:.80}")
    if x.ndim != 4 or x.numel() == 0 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"animate: images must have the shape (B, 1 or 3, H, W), got {tuple(x.shape)}"
        )
    if not all_finite(x):
        raise ValueError("animate: images have NaN or Inf; mend what made them")
    return x.detach().float().cpu()


def _checked_scale(scale: int | None, x: Tensor) -> int:
    """The enlargement asked for, or the one that fits; no frame beyond MAX_PIXELS."""
    columns, rows = min(len(x), COLUMNS), -(-len(x) // COLUMNS)
    height, width = x.shape[-2:]
    if scale is None:
        return max(1, min(WIDTH_OF_ONE // width, WIDTH // (columns * width)))
    scale = integer(scale, "animate: scale", least=1)
    if columns * width * rows * height * scale**2 > MAX_PIXELS:
        raise ValueError(
            f"animate: scale={scale} makes frames of more than {MAX_PIXELS} pixels; lower it"
        )
    return scale


def _check_views(views: Sequence[Transform], x: Tensor) -> None:
    if not isinstance(views, Sequence):
        raise TypeError(f"animate: views must be a list of Transforms, got {views!r}")
    height, width = x.shape[-2:]
    for view in views:
        if not isinstance(view, Transform):
            raise TypeError(f"animate: {view!r} is no Transform; give a name or a Transform object")
        if not view.accepts(height, width):
            raise ValueError(f"animate: {view!r} accepts {view.sizes}, not {height}x{width}")


def _checked_captions(captions: Sequence[str], count: int) -> Sequence[str]:
    listed = isinstance(captions, Sequence) and not isinstance(captions, str)
    if not listed or not all(isinstance(caption, str) for caption in captions):
        raise TypeError(f"animate: captions must be a list of strings, got {captions!r}")
    if captions and len(captions) != count:
        raise ValueError(
            f"animate: captions must be {count}, the image's and one for each view, "
            f"got {len(captions)}"
        )
    return captions
