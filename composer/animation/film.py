"""A film: pictures in time, and the files that hold it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from composer.arguments import finite, positive
from composer.errors import shown

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 8
"""Most images side by side in a frame."""
MAX_FPS = 240
MAX_GIF_FPS = 50
"""Viewers slow down a GIF whose frames last less than two hundredths of a second."""
LONGEST = 3600
"""Seconds."""
PAPER = 255

Picture: TypeAlias = "Callable[[float], Image.Image]"
"""The picture at a share of the way: 0 is the image, 1 its view."""


@dataclass(frozen=True)
class Timing:
    """The speed of an animation.

    Args:
        fps: frames per second while something moves.
        hold: seconds that the image, and each view, stand still.
        move: seconds from the image to a view, and back.
    """

    fps: float = 30.0
    hold: float = 1.0
    move: float = 2.0

    def __post_init__(self) -> None:
        if positive(self.fps, "animate: fps") > MAX_FPS:
            raise ValueError(f"animate: fps must be at most {MAX_FPS}, got {shown(self.fps)}.")
        if positive(self.move, "animate: move") > LONGEST:
            raise ValueError(
                f"animate: move must be at most {LONGEST} seconds, got {shown(self.move)}."
            )
        if not 0 <= finite(self.hold, "animate: hold") <= LONGEST:
            raise ValueError(
                f"animate: hold must be 0 to {LONGEST} seconds, got {shown(self.hold)}."
            )

    def shares(self) -> list[float]:
        """The share of the way at each frame between image and view, slow at both ends."""
        count = max(1, round(self.move * self.fps))
        places = [(k + 1) / (count + 1) for k in range(count)]
        return [t * t * (3 - 2 * t) for t in places]


class Shot(NamedTuple):
    """One picture of a film."""

    picture: Picture
    share: float
    seconds: float


class Format(NamedTuple):
    """How to check and write files of one suffix."""

    check: Callable[[Timing], object]
    write: Callable[[Sequence[Shot], Path, float], None]


def _check_gif(timing: Timing) -> None:
    if timing.fps > MAX_GIF_FPS:
        raise ValueError(
            f"animate: fps of a GIF must be at most {MAX_GIF_FPS}, got {timing.fps:g}. "
            "Write an .mp4 instead."
        )


def _write_gif(film: Sequence[Shot], file: Path, fps: float) -> None:
    """Write each shot as one frame; leave out shots shorter than a hundredth of a second."""
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
    """Write each shot as the frames of its length, in H.264, which needs even sides."""
    from PIL import Image  # noqa: PLC0415, loaded when a film is written

    first = film[0].picture(film[0].share)
    size = first.width + first.width % 2, first.height + first.height % 2
    writer = _ffmpeg().write_frames(
        str(file), size, fps=fps, macro_block_size=1, quality=8, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for shot in film:
            page = Image.new("RGB", size, grey("RGB", PAPER))
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
            "animate: an .mp4 needs imageio-ffmpeg. Run pip install 'diffusion-composer[video]', "
            "or write a .gif."
        ) from None
    return imageio_ffmpeg


FORMATS = {
    ".gif": Format(_check_gif, _write_gif),
    ".mp4": Format(lambda timing: _ffmpeg(), _write_mp4),
}


def grey(mode: str, value: int) -> int | tuple[int, int, int]:
    """A grey value in the form that Pillow needs for a picture of this mode."""
    return value if mode == "L" else (value, value, value)
