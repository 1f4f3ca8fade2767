"""TFG: training-free guidance by a loss of the clean image, through the network and beside it."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from composer import Estimate, Request, Stack, State, Transform, hookimpl
from composer.arguments import choice, finite, integer, within
from composer.authoring import Loss, answers, is_latent, loss_gradient, to_images
from composer.schedules import Schedule
from composer_plugins.steering.by_loss import ByLoss, require_differentiable, untracked

Structure = Literal["increase", "decrease", "constant"]


@dataclass(frozen=True, eq=False)
class TFG(ByLoss):
    """Training-free guidance: after each step move x down a smoothed loss of the clean image.

    With a = alpha_t / alpha_s of the step from t to s, and x0 the estimated clean image,

        L(u)    = -log E exp(-loss(V (u + gamma sigma_t e))),  e ~ N(0, I), by ``draws`` of e,
        Delta_t = -rho_t grad_x L(x0(x)),                      through the network,
        Delta_0 = the sum of ``iterations`` moves -mu_t grad L(x0 + Delta_0),
        x_s     = the solver's x_s + Delta_t / a + alpha_s Delta_0.

    These are the paper's variance guidance, mean guidance and implicit dynamics. Its recurrence is
    ``Recurrence(N)`` in the same stack. rho_t and mu_t have the means rho and mu over the steps;
    they grow with a^2 ("increase", the paper's choice), with 1 - a^2 ("decrease"), or are constant.
    Special cases: rho alone is DPS by another measure of strength, with gamma > 0 LGD; mu alone is
    MPGD; all of it with recurrence is universal guidance.

    ``Steer`` and ``DPS`` change the estimate, so that what they do hardly depends on the number of
    steps, and the strength of a likelihood needs no tuning. Take TFG where such a loss leads astray
    and there is time to tune rho, mu and gamma, as the paper does: from .25 up, doubling.

    It leaves the law of composition on purpose, and must be the outermost plugin that estimates
    noise. It costs no row, with rho a backward pass through the network, whose backend then must be
    ``differentiable``, and draws * iterations values and gradients of the loss. Over latents x is
    the latent and the loss sees decoded images; with mu too their gradient goes through the
    decoder. ``denoise``, which takes no step, is not guided.

    Ye et al. 2024, "TFG: Unified Training-Free Guidance for Diffusion Models", arXiv 2409.15761,
    algorithm 1.

    Args:
        loss: (B, C, H, W) -> (B,), differentiable, each image by itself: minus the log of the
            paper's target predictor.
        rho: strength of variance guidance, any finite number; 0 for none.
        mu: strength of mean guidance, any finite number; 0 for none.
        gamma: width of the smoothing in units of sigma_t, at least 0.
        iterations: moves of the mean guidance per step, 1 to 1000.
        draws: images over which the smoothed loss is averaged, 1 to 1000.
        structure: how rho and mu change over the steps.
        view: the view through which the loss sees the image.
        interval: noise levels (low, high) within [0, 1] at which to steer.
    """

    loss: Loss
    rho: float = 1.0
    mu: float = 1.0
    gamma: float = 0.0
    iterations: int = 4
    draws: int = 4
    structure: Structure = "increase"
    view: str | Transform = "identity"
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rho", "mu", "gamma"):
            finite(getattr(self, name), f"TFG: {name}")
        if self.gamma < 0:
            raise ValueError(f"TFG: gamma must be at least 0, got {self.gamma:g}.")
        integer(self.iterations, "TFG: iterations", least=1, most=1000)
        integer(self.draws, "TFG: draws", least=1, most=1000)
        choice(self.structure, "TFG: structure", ("increase", "decrease", "constant"))

    @hookimpl
    def check(self, stack: Stack) -> None:
        super().check(stack)
        if self.rho != 0 or (self.mu != 0 and is_latent(stack.backend)):
            require_differentiable(stack, "TFG")
        if [p for p in stack.plugins if answers(p, "noise_estimate")][:1] != [self]:
            raise ValueError(
                "TFG: it must be the outermost plugin that estimates noise. Put it before the "
                "others in the list of plugins."
            )

    @hookimpl(trylast=True)  # after other plugins have changed the plan
    def start(self, state: State) -> None:
        schedule = state.backend.schedule
        steps = {(t, s) for t, s in pairwise(state.times) if not schedule.goes_back(t, s)}
        parts = [self._part(schedule, t, s) for t, s in steps]
        state.carried[self, "mean"] = _Mean(math.fsum(parts) / len(parts))

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        mean = request.carried.get((self, "mean"))
        # A solver's further estimates are within the step that the first one guides.
        if (
            mean is None
            or self in request.carried
            or not within(request.noise_level, self.interval)
        ):
            return (yield [request])[0]
        schedule: Schedule = request.backend.schedule
        t, s = request.t, cast(float, request.t_next)  # of the step of a run
        share = self._part(schedule, t, s) / mean.value
        (alpha_t, sigma_t), (alpha_s, _) = schedule.at(t), schedule.at(s)
        loss = self._smoothed(request, self.gamma * sigma_t)
        through = self.rho != 0 and alpha_t > 0  # x_0 of pure noise does not depend on x
        asked = request.tracked() if through else request
        [estimate] = yield [asked]
        plain = untracked(estimate, request.x) if through else estimate
        x0 = u = plain.x0
        for _ in range(self.iterations if self.mu != 0 else 0):
            u = u - self.mu * share * loss_gradient(loss, u, "TFG")
        shift = alpha_s * (u - x0)
        if through:
            with torch.enable_grad():
                clean = estimate.x0
            gradient = loss_gradient(loss, clean, "TFG", of=asked.x)
            shift = shift - alpha_s / alpha_t * self.rho * share * gradient
        request.carried[self] = shift
        return plain

    @hookimpl
    def post_step(self, state: State) -> None:
        shift = state.carried.pop(self, None)
        if shift is not None:
            state.x = state.x + shift

    def _part(self, schedule: Schedule, t: float, s: float) -> float:
        """The share of a step in the guidance of all, up to a factor."""
        ratio = (schedule.at(t)[0] / schedule.at(s)[0]) ** 2
        return {"increase": ratio, "decrease": 1 - ratio, "constant": 1.0}[self.structure]

    def _smoothed(self, request: Request, width: float) -> Loss:
        """The loss -log E exp(-loss(V (u + width e))) of clean images or latents u."""

        def seen(x: Tensor) -> Tensor:
            return self.loss(self._view(to_images(request.backend, x)))

        if width == 0:
            return seen
        offsets = width * torch.stack([request.randn() for _ in range(self.draws)])

        def smoothed(x: Tensor) -> Tensor:
            values: Tensor = seen((x + offsets).flatten(0, 1))
            each = values.unflatten(0, (self.draws, -1))
            mean: Tensor = (-each).logsumexp(0) - math.log(self.draws)
            return -mean

        return smoothed


class _Mean(NamedTuple):
    """A number that a run carries, the same for all images."""

    value: float

    def rows(self, rows: Tensor) -> _Mean:
        return self
