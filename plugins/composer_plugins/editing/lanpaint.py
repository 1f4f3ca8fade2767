"""Inpainting by walks, which make the known and unknown regions agree at each noise level."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from composer import Estimate, Plugin, Stack, State, hookimpl
from composer.arguments import finite, positive
from composer.authoring import (
    KnownRegion,
    check_walks,
    plan_walks,
    require_walks,
    short_repr,
)
from composer.errors import shown
from composer.images import (
    Fit,
    ImageLike,
)
from composer_plugins.editing.given import check_given, hold_given, resized_given


@dataclass(frozen=True, eq=False, repr=False)
class LanPaint(Plugin):
    """At each noise level walk ``steps`` times over the unknown and the known region together.

    With y the image, lambda the guidance and (x_0, e) the estimate at x, the walks follow the BiG
    (bidirectional guided) score: -e / sigma in the unknown region and

        (1 + lambda) (alpha y - x) / sigma^2 + lambda e / sigma

    in the known one, so the known region also moves to fit the unknown one, and no gradient goes
    through the model. With the estimate fixed this is an Ornstein-Uhlenbeck process. It is solved
    exactly for the time ``size`` sigma^2, so walks of any size are stable. In a step of the solver
    the known region follows its own path, x_s = alpha_s y + sigma_s n with n its present noise, as
    every solver of the ODE would do if x_0 were y there. Where the mask is 0 the result is the
    image exactly.

    Zheng, Lan & Wang 2025, "LanPaint", arXiv 2502.03491, without its momentum.

    Args:
        image: a path, a PIL image of any mode or an array of pixels, or a tensor (C, H, W) or
            (B, C, H, W) in [-1, 1]; one, or one per seed.
        mask: the same, or a tensor (H, W) in [0, 1]; white = 1 = repaint. Values between blend.
        steps: walks per noise level, 1 to 1000; each costs as many rows as a step.
        size: length of a walk in units of sigma^2, positive.
        guidance: lambda, at least 0; 0 lets the known region diffuse about the image only.
        interval: noise levels (low, high) within [0, 1] at which to walk.
        fit: brings an image of another size to the model's, and its mask with it: "crop" cuts out
            its middle, "pad" adds white bars, which are kept, "stretch" distorts. None requires
            the model's size.
    """

    __repr__ = short_repr

    unique = "walk at each noise level"
    walks = True
    holds_image = True

    image: ImageLike
    mask: ImageLike
    steps: int = 5
    size: float = 0.3
    guidance: float = 4.0
    interval: Sequence[float] = (0.0, 1.0)
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self, "mask")
        require_walks(self.steps, self.interval, "LanPaint")
        positive(self.size, "LanPaint: size")
        if finite(self.guidance, "LanPaint: guidance") < 0:
            raise ValueError(f"LanPaint: guidance must be at least 0, got {shown(self.guidance)}")

    def resized(self, height: int, width: int) -> Self:
        return resized_given(self, height, width, "mask")

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_given(self, stack.backend, "mask")
        check_walks(self, stack)

    @hookimpl(trylast=True)  # after other plugins have changed the plan
    def start(self, state: State) -> None:
        region = KnownRegion.of(state, self.image, self.mask, self.fit, "LanPaint")
        state.memory[self] = region
        known = state.backend.schedule.add_noise(region.image(state), state.randn(), state.t)
        state.x = region.blended(state.x, known)
        plan_walks(state, self.steps, self.interval)

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor | None:
        """Walk where the plan repeats a time; leave other steps to the solver."""
        return self.walk(state, estimate) if state.t_next == state.t else None

    def walk(self, state: State, estimate: Estimate) -> Tensor:
        """The next image at the same noise level; costs as many rows as a step."""
        region: KnownRegion = state.memory[self]
        alpha, sigma = estimate.schedule.at(state.t)
        x, fresh, pull = estimate.x, sigma * state.randn(), 1 + self.guidance
        unknown = _relaxed(x, alpha * estimate.x0, fresh, self.size)
        centre = alpha * region.image(state) + (self.guidance / pull) * sigma * estimate.noise
        known = _relaxed(x, centre, fresh / math.sqrt(pull), pull * self.size)
        return region.blended(unknown, known)

    @hookimpl
    def post_step(self, state: State) -> None:
        past = state.estimate
        if past is None or past.t == state.t:  # a walk leaves the known region where it went
            return
        region: KnownRegion = state.memory[self]
        image = region.image(state)
        alpha, sigma = past.schedule.at(past.t)
        noise = (past.x - alpha * image) / sigma
        known = past.schedule.add_noise(image, noise, state.t)
        state.x = region.blended(state.x, known)

    @hookimpl(wrapper=True)  # after all others, and on the pixels of a latent model
    def finish(self, state: State) -> Generator[None, None, None]:
        """Set the known region exactly, whatever other plugins did after the last step."""
        yield
        state.x = state.memory[self].restored(state)


def _relaxed(x: Tensor, centre: Tensor, noise: Tensor, time: float) -> Tensor:
    """dx = (centre - x) dt + sqrt(2) s dW solved from x over ``time``; noise is N(0, s^2 I)."""
    kept = math.exp(-time)
    return kept * x + (1 - kept) * centre + math.sqrt(1 - kept**2) * noise
