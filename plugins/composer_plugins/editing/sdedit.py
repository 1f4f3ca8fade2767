"""SDEdit: start from a noised image instead of from noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import finite, integer
from composer.authoring import (
    SETS_START,
    image_shape_of,
    noise_scale_of,
    short_repr,
    to_latents,
)
from composer.errors import shown
from composer.images import Fit, ImageLike, read_picture
from composer_plugins.editing.given import check_given, hold_given, resized_given

DEFAULT_STRENGTH = 0.6


@dataclass(frozen=True, eq=False, repr=False)
class SDEdit(Plugin):
    """Noise an image to an intermediate time, then denoise from there.

    Of the n steps planned, the last min(int(n * strength), n) are taken.

    A latent model noises the latents of the image.

    Meng et al. 2022, "SDEdit", arXiv 2108.01073.

    Args:
        image: a path, a PIL image of any mode or an array of pixels, or a tensor (C, H, W) or
            (B, C, H, W) in [-1, 1]; one, or one per seed.
        strength: in (0, 1]; 1 starts at the first time of the plan, where a flow forgets the
            image and a DDPM schedule keeps the little that its alpha leaves. 0.6 if neither this
            nor ``i_start`` is given.
        i_start: the index in the plan at which to start instead, from 0; the course's i_start.
        fit: brings an image of another size to the model's: "crop" cuts out its middle, "pad" adds
            white bars, "stretch" distorts. None requires the model's size.
    """

    __repr__ = short_repr

    unique = SETS_START
    holds_image = True

    image: ImageLike
    strength: float | None = None
    i_start: int | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self)
        if self.strength is not None and self.i_start is not None:
            raise ValueError("SDEdit: strength and i_start exclude each other. Give one of them.")
        if self.strength is not None and not 0 < finite(self.strength, "SDEdit: strength") <= 1:
            raise ValueError(f"SDEdit: strength must be in (0, 1], got {shown(self.strength)}.")
        if self.i_start is not None:
            integer(self.i_start, "SDEdit: i_start", least=0)

    def resized(self, height: int, width: int) -> Self:
        return resized_given(self, height, width)

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_given(self, stack.backend)
        steps = len(stack.times) - 1
        if self._start(steps) >= steps:
            if self.i_start is not None:
                raise ValueError(
                    f"SDEdit: i_start={self.i_start} leaves none of the {steps} steps. Lower it."
                )
            raise ValueError(
                f"SDEdit: strength={self.strength or DEFAULT_STRENGTH} leaves none of the {steps} "
                "steps. Raise it, or num_inference_steps."
            )

    @hookimpl(tryfirst=True)  # the plan is shortened before others, such as RePaint, extend it
    def start(self, state: State) -> None:
        image = read_picture(self.image, image_shape_of(state.backend), self.fit)
        image = state.each(to_latents(state.backend, image.to(state.x)), "SDEdit")
        state.times = state.times[self._start(len(state.times) - 1) :]
        noise = state.x / noise_scale_of(state.backend)
        state.x = state.backend.schedule.add_noise(image, noise, state.t)

    def _start(self, steps: int) -> int:
        if self.i_start is not None:
            return self.i_start
        return steps - min(int(steps * (self.strength or DEFAULT_STRENGTH)), steps)


def steps_taken(steps: int, strength: float, owner: str) -> int:
    """The number of steps at the end of a plan that an edit of a strength in (0, 1] takes.

    Raises:
        ValueError: it takes none.
    """
    if not 0 < finite(strength, f"{owner}: strength") <= 1:
        raise ValueError(f"{owner}: strength must be in (0, 1], got {shown(strength)}.")
    taken = min(int(steps * strength), steps)
    if taken == 0:
        raise ValueError(
            f"{owner}: strength={strength} leaves none of the {steps} steps. Raise it, or "
            "num_inference_steps."
        )
    return taken
