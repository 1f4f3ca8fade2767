"""Visual anagrams by latent models: one trajectory of latents for each view."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, State, Transform, get_transform, hookimpl
from composer.arguments import choice, finite, integer
from composer.authoring import (
    check_view,
    declared,
    follow_several,
    in_pixels,
    require_coder,
    resized,
    with_jumps,
    with_nested,
)
from composer.errors import owned, shown
from composer.limits import MAX_WALKS
from composer.predictions import SAMPLE
from composer.schedules import Schedule
from composer_plugins.illusions.blends import BLENDS

FIRST, LAST, BACK = 0.2, 0.8, 2
"""Time travel happens between these parts of the steps, and goes back by this number of them."""


@dataclass(frozen=True, eq=False)
class LatentAnagram(Plugin):
    """Denoise the latents of several views, and agree on one image at each step.

    A view V_i of pixels does not commute with a decoder D. So each view keeps latents z_i of its
    own, with their own noise. From the estimates z0_i of the clean latents, with the encoder E,

        p_i = D(z0_i),  d_i = z0_i - E(p_i),  p = blend_i V_i^-1 p_i,  z0_i' = E(V_i p) + d_i,

    and z0_i' takes the place of z0_i. The sum d_i keeps what the round trip through pixels loses.
    At the end the latents of the first view are decoded; the others are dropped.

    For N views a step costs N rows an image in one model call (2 N with CFG), N decoded and 2 N
    encoded images. Over a linear, orthogonal coder, and from noises that are views of one another,
    the images with blend="mean" are those of :class:`Anagram`. Over a model of pixels D and E are
    the identity.

    With ``travel`` the run goes back by two times of its plan at every second time between a fifth
    and four fifths of it, renoises each view's latents, and takes the two steps again, as often as
    ``travel`` says. The views agree better, for more steps. From the noise level ``alone`` on, only
    the first view is denoised, alone: the other trajectories end there, and so do the traces of
    their last details.

    A learned variance is dropped.

    Chang et al. 2025, "LookingGlass", arXiv 2504.08902; Kim et al. 2024, "SyncTweedies", arXiv
    2403.14370.

    Args:
        views: {transform: condition}, as for Anagram; the image is that of the first view, which
            is undone.
        blend: "mean", or "pyramid": on each of five levels of a Laplacian pyramid, half the mean
            and half sum |a_i| a_i / sum |a_i|, which keeps details that one view alone has.
        travel: how often two steps are taken again; 0 for never.
        alone: noise level in [0, 1), at and below which the first view is alone; 0 for none.
    """

    follows_several = True
    unique = "follow several images a seed"
    obeys_law = False
    predicts = SAMPLE

    views: Mapping[str | Transform, Any] | Mapping[str, Any] | Mapping[Transform, Any]
    blend: Literal["mean", "pyramid"] = "mean"
    travel: int = 0
    alone: float = 0.0

    def __post_init__(self) -> None:
        # Look the views up now, so that an unknown name raises here, not at the first step.
        if not isinstance(self.views, Mapping) or not self.transforms:
            raise TypeError(
                "LatentAnagram: views must be a dict such as {'identity': 'a cat', 'flip': "
                f"'a dog'}}, got {shown(self.views)}."
            )
        choice(self.blend, "LatentAnagram: blend", BLENDS)
        integer(self.travel, "LatentAnagram: travel", least=0, most=MAX_WALKS)
        if not 0 <= finite(self.alone, "LatentAnagram: alone") < 1:
            raise ValueError(
                f"LatentAnagram: alone must be a noise level in [0, 1), got {self.alone}. 0 keeps "
                "all views to the end."
            )

    @property
    def conditions(self) -> tuple[Any, ...]:
        return tuple(self.views.values())

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        """The views, names looked up."""
        with owned("LatentAnagram"):
            return tuple(get_transform(view) for view in self.views)

    def resized(self, height: int, width: int) -> Self:
        size = height, width
        views = {resized(v, *size): resized(c, *size) for v, c in self.views.items()}
        return replace(self, views=views)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "LatentAnagram")
        for view in self.transforms:
            check_view(view, stack.backend, "LatentAnagram")
        for plugin in with_nested(stack.plugins):
            if declared(plugin, "holds_image"):
                raise ValueError(
                    f"LatentAnagram: {type(plugin).__name__} holds one image, which is another in "
                    "each view. Remove it, or use Anagram with a model of pixels."
                )

    @hookimpl(wrapper=True)  # around all others, so that they prepare one input per view
    def start(self, state: State) -> Generator[None, None, None]:
        follow_several(state, len(self.views))
        yield
        if self.travel:
            state.times = self._travelled(state.times, state.backend.schedule)

    def _travelled(self, times: list[float], schedule: Schedule) -> list[float]:
        """The plan with its repeated steps."""
        steps = len(times) - 1
        inside = [
            place
            for place in range(math.ceil(steps * FIRST), math.floor(steps * LAST) + 1)
            if schedule.noise_level(times[place]) > self.alone
        ]
        if len(inside) <= BACK:
            raise ValueError(
                f"LatentAnagram: travel needs more than {BACK} times between {FIRST:g} and "
                f"{LAST:g} of the plan and above alone={self.alone:g}, got {len(inside)} of "
                f"{steps} steps. Take more steps, or travel=0."
            )
        first, last = inside[0], inside[-1]
        again = with_jumps(times[first : last + 2], BACK, 1 + self.travel)
        return [*times[:first], *again, *times[last + 2 :]]

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        if self._is_alone(request.noise_level):
            (answer,) = yield [request.fill(self.conditions[0])]
            return request.answer(answer.x0, None, SAMPLE)
        count = len(self.views)
        if len(request.x) % count:
            raise ValueError(
                f"LatentAnagram: x must have {count} images a seed, one for each view in turn, got "
                f"{len(request.x)} in all."
            )
        rows = torch.arange(len(request.x)).reshape(-1, count).T
        answers = yield [
            request.rows(own).fill(condition)
            for own, condition in zip(rows, self.conditions, strict=True)
        ]
        z0 = torch.cat([answer.x0 for answer in answers])
        agreed = in_pixels(request.backend, self._agreed, z0)
        x0 = agreed.unflatten(0, (count, -1)).transpose(0, 1).flatten(0, 1)
        return request.answer(x0, None, SAMPLE)

    def _agreed(self, images: Tensor) -> Tensor:
        """Views of one image from an image of each view, view by view."""
        views = self.transforms
        aligned = [
            view.inverse(image) for view, image in zip(views, images.chunk(len(views)), strict=True)
        ]
        blended = BLENDS[self.blend](torch.stack(aligned))
        return torch.cat([view(blended) for view in views])

    @hookimpl(trylast=True)  # after other plugins have changed x
    def post_step(self, state: State) -> None:
        if self._is_alone(state.backend.schedule.noise_level(state.t)) and not state.finished:
            self._end_others(state)

    @hookimpl(wrapper=True)  # to undo the first view after a latent backend has decoded x
    def finish(self, state: State) -> Generator[None, None, None]:
        self._end_others(state)
        yield
        state.x = self.transforms[0].inverse(state.x)

    def _is_alone(self, noise_level: float) -> bool:
        return self.alone > 0 and noise_level <= self.alone

    def _end_others(self, state: State) -> None:
        """Keep the trajectory of the first view."""
        if len(state.x) > len(state.seeds):
            state.select(torch.arange(0, len(state.x), len(self.views)))
