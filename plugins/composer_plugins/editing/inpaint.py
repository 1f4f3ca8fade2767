"""Inpainting: keep the known region of an image and let the model make the rest."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import choice, integer
from composer.authoring import (
    KnownRegion,
    draw,
    short_repr,
    with_jumps,
)
from composer.images import (
    Fit,
    ImageLike,
)
from composer.limits import MAX_WALKS
from composer_plugins.editing.given import check_given, hold_given, resized_given

Mode = Literal["clean", "renoise", "repaint", "fixed"]


@dataclass(frozen=True, eq=False, repr=False)
class Inpaint(Plugin):
    """After each step replace the known region: x <- mask * x + (1 - mask) * known(t).

    known(t) is the image as it is ("clean", as diffusers' IFInpaintingPipeline does), or noised
    afresh to the level of x ("renoise", Song et al. 2021, arXiv 2011.13456, appendix I.2; equation
    A.5 of the course), or renoised with jumps back to noise, so that the regions agree ("repaint",
    Lugmayr et al. 2022, arXiv 2201.09865), or noised by the initial noise of the seed at every step
    ("fixed", as the latent pipelines of diffusers do). Where the mask is 0 the result is the image
    exactly. For a latent model, the steps replace latents under the resized mask, and the end
    replaces pixels.

    Args:
        image: a path, a PIL image of any mode or an array of pixels, or a tensor (C, H, W) or
            (B, C, H, W) in [-1, 1]; one, or one per seed.
        mask: the same, or a tensor (H, W) in [0, 1]; white = 1 = repaint. Values between blend
            image and sample; with fresh noise in the known part, the noise is lower where they do.
        mode: "clean", "renoise", "repaint" or "fixed".
        jump_length: steps that a RePaint jump goes back.
        resamples: how often RePaint walks each stretch of the plan, jumps included; 1 to 1000.
        fit: brings an image of another size to the model's, and its mask with it: "crop" cuts out
            its middle, "pad" adds white bars, which are kept, "stretch" distorts. None requires
            the model's size.
    """

    __repr__ = short_repr

    holds_image = True
    image: ImageLike
    mask: ImageLike
    mode: Mode = "renoise"
    jump_length: int = 5
    resamples: int = 2
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self, "mask")
        choice(self.mode, "Inpaint: mode", _KNOWN)
        integer(self.jump_length, "Inpaint: jump_length", least=1)
        integer(self.resamples, "Inpaint: resamples", least=1, most=MAX_WALKS)

    @property
    def unique(self) -> str:
        return "plan jumps" if self.mode == "repaint" else ""

    def resized(self, height: int, width: int) -> Self:
        return resized_given(self, height, width, "mask")

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_given(self, stack.backend, "mask")

    @hookimpl
    def start(self, state: State) -> None:
        state.memory[self] = KnownRegion.of(state, self.image, self.mask, self.fit, "Inpaint")
        if self.mode == "repaint":
            plan = with_jumps(state.times, self.jump_length, self.resamples)
            if len(plan) == len(state.times) and self.resamples > 1:
                raise ValueError(
                    f"Inpaint: {len(plan) - 1} steps leave no room for a jump of "
                    f"jump_length={self.jump_length}. Lower it, or take more steps."
                )
            state.times = plan
        if self.mode != "fixed":  # there the run begins with the noise itself, or SDEdit's image
            self._project(state)

    @hookimpl
    def post_step(self, state: State) -> None:
        self._project(state)

    @hookimpl(wrapper=True)  # after all others, and on the pixels of a latent model
    def finish(self, state: State) -> Generator[None, None, None]:
        """Set the known region exactly, whatever other plugins did after the last step."""
        yield
        state.x = state.memory[self].restored(state)

    def _project(self, state: State) -> None:
        region: KnownRegion = state.memory[self]
        known = _KNOWN[self.mode](state, region.image(state))
        state.x = region.blended(state.x, known)


def _clean(state: State, image: Tensor) -> Tensor:
    return image


def _renoised(state: State, image: Tensor) -> Tensor:
    _, sigma = state.backend.schedule.at(state.t)
    if sigma == 0:
        return image
    return state.backend.schedule.add_noise(image, state.randn(), state.t)


def _first_noised(state: State, image: Tensor) -> Tensor:
    # Drawn anew, for SDEdit may have taken the place of what the run began with.
    firsts = [torch.Generator().manual_seed(seed) for seed in state.seeds]
    noise = state.each(draw(firsts, state.backend), "Inpaint")
    return state.backend.schedule.add_noise(image, noise, state.t)


_KNOWN: dict[str, Callable[[State, Tensor], Tensor]] = {
    "clean": _clean,
    "renoise": _renoised,
    "repaint": _renoised,
    "fixed": _first_noised,
}
