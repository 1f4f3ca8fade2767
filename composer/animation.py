"""Animations of an image and its views: hold, move, hold, and back."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from composer.arguments import finite, integer, positive
from composer.images import to_pil
from composer.transforms import Transform

COLUMNS = 8
MARGIN = 4
WIDTH_OF_ONE, WIDTH = 512, 1024
"""In pixels, of an image and of a frame: what ``scale=None`` enlarges to, if it can."""
FAR = 12.0
"""How many times smaller an image without views grows."""
MAX_GIF_FPS = 50
"""Viewers slow down a GIF whose frames last less than two hundredths of a second."""
PAPER, INK = 255, 60
LINE = 28
"""Height of the line of captions."""

Picture = Callable[[float], Image.Image]
"""The picture at a share of the way: 0 is the image, 1 its view."""


@dataclass(frozen=True)
class Timing:
    """How long things last.

    Args:
        fps: frames a second while something moves.
        hold: seconds that the image, and each view, stand still.
        move: seconds from the image to a view, and back.
    """

    fps: float = 30.0
    hold: float = 1.0
    move: float = 2.0

    def __post_init__(self) -> None:
        positive(self.fps, "animate: fps")
        positive(self.move, "animate: move")
        if finite(self.hold, "animate: hold") < 0:
            raise ValueError(f"animate: hold must not be negative, got {self.hold!r}")

    def shares(self) -> list[float]:
        """Shares of the way of the frames between image and view, slow at both ends."""
        count = max(1, round(self.move * self.fps))
        places = [(k + 1) / (count + 1) for k in range(count)]
        return [t * t * (3 - 2 * t) for t in places]


class Shot(NamedTuple):
    """One picture of a film."""

    picture: Picture
    share: float
    seconds: float


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
    timing, target = timing or Timing(), _checked_path(path)
    form = _checked_format(target, timing)
    x = x.detach().float().cpu()
    _check_views(views, x)
    captions = _checked_captions(captions, 1 + max(1, len(views)))
    columns = min(len(x), COLUMNS)
    width = x.shape[-1]
    fitting = max(1, min(WIDTH_OF_ONE // width, WIDTH // (columns * width)))
    scale = fitting if scale is None else integer(scale, "animate: scale", least=1)
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
        canvas = Image.new(near.mode, near.size, _grey(near.mode, PAPER))
        middle = ((near.width - size[0]) // 2, (near.height - size[1]) // 2)
        canvas.paste(near.resize((size[0], size[1]), Image.Resampling.LANCZOS), middle)
        return canvas

    return picture


def _captioned(picture: Picture, first: str, last: str) -> Picture:
    """A line below: the image's caption fades as it leaves, the view's appears as it arrives."""

    def with_line(share: float) -> Image.Image:
        image = picture(share)
        page = Image.new(image.mode, (image.width, image.height + LINE), _grey(image.mode, PAPER))
        page.paste(image, (0, 0))
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
        for text, strength in ((first, 1 - 4 * share), (last, 4 * share - 3)):
            if strength > 0:
                ink = _grey(image.mode, round(PAPER + strength * (INK - PAPER)))
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
    sheet = Image.new(images[0].mode, size, _grey(images[0].mode, PAPER))
    for k, image in enumerate(images):
        sheet.paste(image, (k % COLUMNS * step[0], k // COLUMNS * step[1]))
    return sheet


def _grey(mode: str, value: int) -> int | tuple[int, int, int]:
    return value if mode == "L" else (value, value, value)


def _there_and_back(picture: Picture, timing: Timing) -> Iterator[Shot]:
    shares = timing.shares()
    yield Shot(picture, 0.0, timing.hold)
    yield from (Shot(picture, share, 1 / timing.fps) for share in shares)
    yield Shot(picture, 1.0, timing.hold)
    yield from (Shot(picture, share, 1 / timing.fps) for share in reversed(shares))


class Format(NamedTuple):
    """How files of one suffix are written, and what they need."""

    check: Callable[[Timing], object]
    write: Callable[[Sequence[Shot], Path, float], None]


def _check_gif(timing: Timing) -> None:
    if timing.fps > MAX_GIF_FPS:
        raise ValueError(
            f"animate: a GIF has at most {MAX_GIF_FPS} frames a second, got fps={timing.fps:g}; "
            "write an .mp4"
        )


def _write_gif(film: Sequence[Shot], file: Path, fps: float) -> None:
    """A shot is one frame; what lasts no hundredth of a second is left out."""
    # A GIF counts hundredths of a second: rounding the running sum keeps the whole length right.
    ends, durations = 0.0, []
    for shot in film:
        durations.append(round(100 * (ends + shot.seconds)) * 10 - round(100 * ends) * 10)
        ends += shot.seconds
    lasting = [k for k, duration in enumerate(durations) if duration > 0]
    frames = (film[k].picture(film[k].share) for k in lasting)
    next(frames).save(
        file,
        save_all=True,
        append_images=frames,
        duration=[durations[k] for k in lasting],
        loop=0,
    )


def _write_mp4(film: Sequence[Shot], file: Path, fps: float) -> None:
    """A shot is as many frames as it lasts; H.264, which wants even sides."""
    first = film[0].picture(film[0].share)
    size = first.width + first.width % 2, first.height + first.height % 2
    writer = _ffmpeg().write_frames(
        str(file), size, fps=fps, macro_block_size=1, quality=8, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for shot in film:
            page = Image.new("RGB", size, _grey("RGB", PAPER))
            page.paste(shot.picture(shot.share), (0, 0))
            for _ in range(round(shot.seconds * fps)):
                writer.send(page.tobytes())
    finally:
        writer.close()


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg  # noqa: PLC0415, an optional extra
    except ImportError:
        raise ImportError(
            "an .mp4 needs imageio-ffmpeg: pip install 'diffusion-composer[video]', or write a .gif"
        ) from None
    return imageio_ffmpeg


_FORMATS = {
    ".gif": Format(_check_gif, _write_gif),
    ".mp4": Format(lambda timing: _ffmpeg(), _write_mp4),
}


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
    form = _FORMATS.get(target.suffix.lower())
    if form is None:
        raise ValueError(f"animate: path must end in .gif or .mp4, got {str(target)!r}")
    if not target.parent.is_dir():
        raise ValueError(
            f"animate: the folder {str(target.parent)!r} does not exist; make it first"
        )
    form.check(timing)
    return form


def _check_views(views: Sequence[Transform], x: Tensor) -> None:
    if x.ndim != 4 or len(x) == 0 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"animate: images must have the shape (B, 1 or 3, H, W), got {tuple(x.shape)}"
        )
    height, width = x.shape[-2:]
    for view in views:
        if not isinstance(view, Transform):
            raise TypeError(f"animate: {view!r} is no Transform; give a name or a Transform object")
        if not view.accepts(height, width):
            raise ValueError(f"animate: {view!r} accepts {view.sizes}, not {height}x{width}")


def _checked_captions(captions: Sequence[str], count: int) -> Sequence[str]:
    if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
        raise TypeError(f"animate: captions must be a list of strings, got {captions!r}")
    if captions and len(captions) != count:
        raise ValueError(
            f"animate: captions must be {count}, the image's and one for each view, "
            f"got {len(captions)}"
        )
    return captions
