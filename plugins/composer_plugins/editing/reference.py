"""Inverse problems: the model completes an image of which one component is given."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from composer import Backend, Estimate, Plugin, Request, Stack, State, hookimpl
from composer.arguments import integer
from composer.authoring import (
    Decomposition,
    Part,
    check_parts,
    image_shape_of,
    in_pixels,
    is_latent,
    parts_of,
    resized,
    short_repr,
)
from composer.images import Fit, ImageLike, read_picture
from composer_plugins.editing.given import check_given, hold_given, resized_given
from composer_plugins.illusions.decompositions import Bands


@dataclass(frozen=True, eq=False, repr=False)
class Reference(Plugin):
    """Replace one component of x by that of a reference image after each step.

    With P the part chosen, x <- x - P x + P (alpha(t) image + sigma(t) noise); after the last step
    x <- x - P x + P image. Where P is a projection (gray, a hard mask) the result has P x = P image
    exactly. Where it is not (a blur), the result is a hybrid: P image plus the rest of the sample.

    P does not act on the noised latents of a latent model. There each step replaces the component
    of the decoded clean image, x_0 <- x_0 - P x_0 + P image, and the end that of the image.

    Geng, Park & Owens 2024, "Factorized Diffusion", arXiv 2404.11615, section 3.4.

    Args:
        image: a path, a PIL image of any mode or an array of pixels, or a tensor (C, H, W) or
            (B, C, H, W) in [-1, 1]; one, or one per seed.
        decomposition: its parts sum to the identity.
        part: index of the part that the image gives, from 0.
        fit: brings an image of another size to the model's: "crop" cuts out its middle, "pad" adds
            white bars, "stretch" distorts. None requires the model's size.
    """

    __repr__ = short_repr

    holds_image = True

    image: ImageLike
    decomposition: Decomposition | Sequence[Part] = field(default_factory=Bands)
    part: int = 0
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self)
        count = len(parts_of(self.decomposition, "Reference"))
        if integer(self.part, "Reference: part", least=0) >= count:
            raise ValueError(f"Reference: part must be below {count}, got {self.part}.")

    def resized(self, height: int, width: int) -> Self:
        given = resized_given(self, height, width)
        return replace(given, decomposition=resized(self.decomposition, height, width))

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_given(self, stack.backend)
        check_parts(self.decomposition, stack.backend, "Reference", may_vanish=True)
        others = [p for p in stack.plugins if isinstance(p, Reference) and p is not self]
        if any((p.decomposition, p.part) == (self.decomposition, self.part) for p in others):
            raise ValueError("Reference: two of them give the same part of the image. Remove one.")

    @hookimpl
    def start(self, state: State) -> None:
        state.memory[self] = self._pixels(state.backend).to(state.x)
        self._replace(state)

    @hookimpl(tryfirst=True)  # outermost, on the combined estimate of views and guidance
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        """Over latents replace the part of the clean image."""
        estimate = (yield [request])[0]
        if not is_latent(request.backend):
            return estimate
        images = self._pixels(request.backend).to(request.x)
        known = (
            images if len(images) == 1 else images[list(request.origin or range(len(request.x)))]
        )
        x0 = in_pixels(request.backend, lambda x0: x0 + self._part(known - x0), estimate.x0)
        return estimate.with_x0(x0)

    @hookimpl
    def post_step(self, state: State) -> None:
        self._replace(state)

    @hookimpl(wrapper=True)  # after all others, and on the pixels of a latent model
    def finish(self, state: State) -> Generator[None, None, None]:
        """Set the part exactly if it is a projection, whatever other plugins did to x.

        For other parts, a second replacement would also change the rest of the sample.
        """
        yield
        gap = self._part(self._given(state) - state.x)
        ended = state.position + 1 == len(state.times)
        if ended and torch.allclose(self._part(gap), gap, atol=1e-6):
            state.x = state.x + gap

    def _part(self, x: Tensor) -> Tensor:
        return parts_of(self.decomposition, "Reference")[self.part](x)

    def _pixels(self, backend: Backend) -> Tensor:
        return read_picture(self.image, image_shape_of(backend), self.fit)

    def _given(self, state: State) -> Tensor:
        return state.each(state.memory[self], "Reference").expand_as(state.x)

    def _replace(self, state: State) -> None:
        """Over pixels replace the part of x."""
        if is_latent(state.backend):
            return
        known = self._given(state)
        if state.backend.schedule.noise_level(state.t) > 0:
            known = state.backend.schedule.add_noise(known, state.randn(), state.t)
        state.x = state.x + self._part(known - state.x)
