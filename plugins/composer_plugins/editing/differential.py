"""Differential Diffusion: how much each pixel may change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from composer import Plugin, Stack, State, hookimpl
from composer.authoring import (
    SETS_START,
    KnownRegion,
    draw,
    short_repr,
)
from composer.images import (
    Fit,
    ImageLike,
    to_mask,
)
from composer_plugins.editing.given import check_given, hold_given, resized_given


@dataclass(frozen=True, eq=False, repr=False)
class DifferentialEdit(Plugin):
    """SDEdit with a strength for each pixel: a pixel is free in the last int(n * strength) steps.

    Until then it is the image, noised by the initial noise of the seed to the level of x:

        x <- free * x + (1 - free) * (alpha image + sigma noise).

    So the mask of Inpaint grows with time, and a map that changes gradually leaves no seam. Equal
    strengths everywhere are SDEdit; strength 0 returns a pixel of the image exactly, strength 1
    repaints it. For a latent model, each latent takes the strength of its nearest pixel.

    Levin & Fried 2023, "Differential Diffusion", arXiv 2306.00950, algorithm 1.

    Args:
        image: as for SDEdit; one, or one per seed.
        strengths: a map (H, W) in [0, 1]; or a grey picture, white = 1.
        fit: brings image and map of another size to the model's: "crop", "pad" or "stretch", as
            for Inpaint.
    """

    __repr__ = short_repr

    unique = SETS_START
    holds_image = True

    image: ImageLike
    strengths: ImageLike
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self, "strengths")

    def resized(self, height: int, width: int) -> Self:
        return resized_given(self, height, width, "strengths")

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_given(self, stack.backend, "strengths")
        _require_steps(_last_steps(to_mask(self.strengths), len(stack.times) - 1))

    @hookimpl(tryfirst=True)  # the plan is shortened before others extend it
    def start(self, state: State) -> None:
        owner = "DifferentialEdit"
        region = KnownRegion.of(state, self.image, self.strengths, self.fit, owner)
        steps, schedule = len(state.times) - 1, state.backend.schedule
        levels = [schedule.noise_level(t) for t in reversed(state.times)]
        state.memory[self] = _Map(region, _last_steps(region.mask, steps), levels)
        most = _require_steps(_last_steps(to_mask(self.strengths), steps))
        state.times = state.times[-1 - most :]
        state.x = self._noised(state)

    @hookimpl
    def post_step(self, state: State) -> None:
        held: _Map = state.memory[self]
        # Also after jumps back, the steps of the plan that are left from this noise level on.
        left = bisect_right(held.levels, state.backend.schedule.noise_level(state.t)) - 1
        state.x = torch.where(held.last > left, state.x, self._noised(state))

    @hookimpl(wrapper=True)  # after all others, and on the pixels of a latent model
    def finish(self, state: State) -> Generator[None, None, None]:
        """Set pixels of strength 0 exactly, whatever other plugins did after the last step."""
        yield
        state.x = state.memory[self].region.restored(state)

    def _noised(self, state: State) -> Tensor:
        """The image at the time of x, with the initial noise."""
        generators = [torch.Generator().manual_seed(seed) for seed in state.seeds]
        noise = state.each(draw(generators, state.backend), "DifferentialEdit")
        image = state.memory[self].region.image(state)
        return state.backend.schedule.add_noise(image, noise, state.t).expand_as(state.x)


class _Map(NamedTuple):
    """The image; in how many last steps each place (H, W) is free; and the noise levels of the
    plan, from clean to noisy."""

    region: KnownRegion
    last: Tensor
    levels: list[float]


def _last_steps(strengths: Tensor, steps: int) -> Tensor:
    """int(steps * strength) for each place, safe from the rounding of 0.7 in float32."""
    return (strengths * (steps * (1 + 1e-6))).long().clamp(max=steps)


def _require_steps(last: Tensor) -> int:
    """The most steps of a place, on the CPU; raise a ValueError unless there is one."""
    most = int(last.max())
    if most == 0:
        raise ValueError(
            "DifferentialEdit: strengths must leave a step somewhere, got none. Raise them, or "
            "num_inference_steps."
        )
    return most
