"""Steering by the gradient of a score of clean images, without a gradient through the model."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import Backend, Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite, integer, interval, positive, within
from composer.authoring import (
    Score,
    check_score,
    image_shape_of,
    in_pixels,
    once,
    require_coder,
    require_score,
)
from composer.errors import shown


@dataclass(frozen=True, eq=False)
class Climb(Plugin):
    """Move each estimated clean image up the gradient g of a score, ``climbs`` times.

        x_0 <- x_0 + (length / climbs) g / max(rms(g), steep),    g = grad score(clip(x_0)),

    rms over the pixels of an image, so an image moves by ``length`` in root mean square at most.
    Where the score is flatter than ``steep``, as that of an image which reads well already, it
    moves less: gradient clipping. Without it, steps along tiny gradients draw specks.
    The gradient is not taken through the model, as in FlowChef (Patel et al. 2024, arXiv
    2412.00100) and in the mean guidance of TFG (Ye et al. 2024, arXiv 2409.15761, section 3.2), so
    it costs no row. In the remaining steps the model makes an image of it.
    An interval that ends above 0 leaves it some; without them a network's score draws patterns that
    this network alone reads. :class:`Steer` stays near the model's clean image by the size of its
    loss; here the length is given whatever the size of the score, which is the one that Particles
    chooses by.

    Take ``Steer`` where the score is a likelihood: its steps have the size that the noise level and
    the likelihood imply. Take this where only the direction means something, as with a network's
    confidence, whose gradient is tiny or huge: each step above ``steep`` has the stated length.

    Put it around anagrams and the like: it scores the image, not a view of it. Over latents it
    moves the decoded image and encodes it again, plus what the round trip loses (``in_pixels``). It
    leaves the law of composition on purpose. Nothing waits for the device.

    Args:
        score: a differentiable function (B, C, H, W) in [-1, 1] -> (B,), higher is better; each
            image scored alone.
        length: root mean square by which a clean image moves in a step, above 0.
        climbs: gradients a step, 1 to 1000.
        interval: noise levels sigma / (alpha + sigma) within which to steer.
        steep: the rms(g) from which on a step has its whole length; 0 for all steps.
    """

    obeys_law = False

    score: Score
    length: float = 1.0
    climbs: int = 4
    interval: Sequence[float] = (0.3, 1.0)
    steep: float = 0.0

    def __post_init__(self) -> None:
        require_score(self.score, "Climb")
        positive(self.length, "Climb: length")
        integer(self.climbs, "Climb: climbs", least=1, most=1000)
        interval(self.interval, "Climb: interval")
        if finite(self.steep, "Climb: steep") < 0:
            raise ValueError(f"Climb: steep must be at least 0, got {self.steep}.")

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_score(self.score, stack.backend, "Climb")
        require_coder(stack.backend, "Climb")
        once(lambda: self._require_gradient(stack.backend), "gradient", self.score)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        estimate = (yield [request])[0]
        if not within(request.noise_level, self.interval):
            return estimate
        return estimate.with_x0(in_pixels(request.backend, self._climbed, estimate.x0))

    def _climbed(self, x0: Tensor) -> Tensor:
        for _ in range(self.climbs):
            x0 = x0 + self.length / self.climbs * direction(self.score, x0, self.steep)
        return x0

    def _require_gradient(self, backend: Backend) -> None:
        grey = torch.zeros(1, *image_shape_of(backend), dtype=backend.dtype, device=backend.device)
        with torch.enable_grad():
            score = self.score(grey.requires_grad_())
        if not score.requires_grad:
            raise ValueError(
                f"Climb: score must be differentiable, got {shown(self.score)}. Compute it from "
                "the image by torch, outside of torch.no_grad()."
            )


def direction(score: Score, x: Tensor, steep: float) -> Tensor:
    """The gradient (B, C, H, W) of score(clip(x)), of root mean square 1 an image; in proportion to
    the gradient where that has less than ``steep``."""
    with torch.enable_grad():
        image = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(image.clamp(-1, 1)).sum(), image)
    size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return gradient / size.clamp_min(max(steep, torch.finfo(size.dtype).tiny))
