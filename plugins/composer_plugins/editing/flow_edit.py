"""FlowEdit: move an image from one description to another, without inversion."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, State, hookimpl
from composer.arguments import finite, integer
from composer.authoring import (
    SETS_START,
    check_encodable,
    declared,
    image_shape_of,
    noise_scale_of,
    short_repr,
    to_latents,
)
from composer.images import Fit, ImageLike, read_picture
from composer_plugins.editing.given import check_given, hold_given, resized_given
from composer_plugins.editing.sdedit import steps_taken


@dataclass(frozen=True, eq=False, repr=False)
class FlowEdit(Plugin):
    """Move an image along the difference of two velocities, one for each condition.

    With u = x / (alpha + sigma), tau = sigma / (alpha + sigma), v = noise - x_0, the image y and
    fresh noise n at each step, the edited image z begins as y and follows

        z <- z + (tau_s - tau_t) (v(z + d, t | target) - v(y + d, t | source)),   d = tau (n - y).

    x is z + d, the noised edit, so previews, views and Inpaint see what they expect. The target is
    the condition of the call, with all plugins of the stack; the source passes through the same
    stack. With equal conditions the image returns exactly. It takes the solver's place; below the
    noise level ``stop`` the solver goes on from x.

    Kulikov et al. 2024, "FlowEdit", arXiv 2412.08629, algorithm 1: strength is n_max / n, and
    ``averages`` n_avg. Written for every path, not only flows.

    Args:
        image: as for SDEdit; one, or one per seed.
        source: the condition that describes the image.
        strength: in (0, 1]; the last int(n * strength) steps are taken.
        averages: noises per step, 1 to 1000; each costs the rows of two estimates.
        stop: noise level in [0, 1) from which on the solver samples the target alone.
        fit: as for SDEdit.
    """

    __repr__ = short_repr

    unique = SETS_START
    holds_image = True

    image: ImageLike
    source: Any
    strength: float = 0.7
    averages: int = 1
    stop: float = 0.0
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self)
        integer(self.averages, "FlowEdit: averages", least=1, most=1000)
        if self.source is None:
            raise TypeError(
                "FlowEdit: source must be a condition, got None. Say what the image shows."
            )
        if not 0 <= finite(self.stop, "FlowEdit: stop") < 1:
            raise ValueError(f"FlowEdit: stop must be in [0, 1), got {self.stop}.")

    def resized(self, height: int, width: int) -> Self:
        return resized_given(self, height, width)

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_given(self, stack.backend)
        check_encodable(stack.backend, self.source, "FlowEdit: source")
        if several := [p for p in stack.plugins if declared(p, "follows_several")]:
            raise ValueError(
                f"FlowEdit: it cannot be combined with {type(several[0]).__name__}, which follows "
                "several images of each seed. Use more seeds and choose among the results."
            )
        steps_taken(len(stack.times) - 1, self.strength, "FlowEdit")

    @hookimpl(tryfirst=True)  # the plan is shortened before others extend it
    def start(self, state: State) -> None:
        image = read_picture(self.image, image_shape_of(state.backend), self.fit)
        image = to_latents(state.backend, image.to(state.x))
        taken = steps_taken(len(state.times) - 1, self.strength, "FlowEdit")
        state.times = state.times[-1 - taken :]
        noise = state.x / noise_scale_of(state.backend)
        state.x = state.backend.schedule.add_noise(state.each(image, "FlowEdit"), noise, state.t)
        state.memory[self] = _Held(image, noise)

    @hookimpl
    def step(
        self, state: State, estimate: Estimate
    ) -> Generator[list[Request], list[Estimate], Tensor] | None:
        if state.t_next == state.t or estimate.schedule.noise_level(estimate.t) <= self.stop:
            return None
        return self._moved(state, estimate)

    def _moved(
        self, state: State, estimate: Estimate
    ) -> Generator[list[Request], list[Estimate], Tensor]:
        held: _Held = state.memory[self]
        schedule = estimate.schedule
        tau, tau_s = (schedule.noise_level(t) for t in (estimate.t, state.t_next))
        size, image = sum(schedule.at(estimate.t)), state.each(held.image, "FlowEdit")
        z: Tensor = estimate.x / size - tau * (held.noise - image)
        noises = [held.noise, *(state.randn() for _ in range(self.averages - 1))]
        seen = [size * torch.lerp(image, noise, tau) for noise in noises]
        targets = [size * (z + tau * (noise - image)) for noise in noises[1:]]
        answers = yield [
            *(state.request(x, estimate.t).replace(condition=self.source) for x in seen),
            *(state.request(x, estimate.t) for x in targets),
        ]
        sources, edited = answers[: len(seen)], [estimate, *answers[len(seen) :]]
        for source, target in zip(sources, edited, strict=True):
            z = z + ((tau_s - tau) / len(noises)) * (_slope(target) - _slope(source))
        fresh = state.randn()
        state.memory[self] = _Held(held.image, fresh)
        return sum(schedule.at(state.t_next)) * (z + tau_s * (fresh - image))


class _Held(NamedTuple):
    """The image or its latents, (1, C, H, W) or one per seed, and the noise in x."""

    image: Tensor
    noise: Tensor


def _slope(estimate: Estimate) -> Tensor:
    """du / dtau."""
    return estimate.noise - estimate.x0
