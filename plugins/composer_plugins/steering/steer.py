"""Steer: the clean image moved down the gradient of a loss, without a gradient of the network."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import Estimate, Request, Stack, Transform, hookimpl
from composer.arguments import finite, integer, positive, within
from composer.authoring import Loss, in_pixels, loss_gradient, require_coder
from composer_plugins.steering.by_loss import ByLoss
from composer_plugins.steering.densities import squared


@dataclass(frozen=True, eq=False)
class Steer(ByLoss):
    """Sample about the model's density times exp(-strength * loss(V x)), V a view.

    x_0 given x is taken for N(x0, r^2 I), with x0 the estimated clean image and
    r^2 = sigma^2 S^2 / (alpha^2 S^2 + sigma^2), S = data_std. The estimate's clean image becomes
    the minimum u of

        strength * loss(V u) + |u - x0|^2 / (2 r^2)

    by gradient descent from x0. The first step is x0 - r^2 strength * gradient, the only one with
    iterations=1; later ones take the length that the last two gradients imply (Barzilai-Borwein),
    at most r^2. Two are enough where the loss is a squared error of pixels or block means. For
    Gaussian data of deviation S and a squared error, the minimum is the exact mean given the
    measurement, and the samples have the exact posterior. The gradient is the loss's alone, which
    costs no row.

    The scale of the loss matters. Where only its direction means something, as with a network's
    confidence, take ``Climb``, whose steps have a stated length.

    It leaves the law of composition on purpose: it works on x_0. It acts on the estimate of the
    plugins after it in the list, so it goes first, around views and guidance; several in a stack
    add up. Over latents it moves the decoded image and encodes it again, plus what the round trip
    loses (``in_pixels``), so it needs no gradient of the decoder.

    With iterations=1 under Euler on a flow path this is FlowChef with steps of
    strength * r^2 (s - t) / (1 - t): Patel et al. 2024, "Steering Rectified Flow Models in the
    Vector Field for Controlled Image Generation", arXiv 2412.00100, algorithm 1. More iterations
    are the mean guidance of TFG with a term that keeps u near x0: Ye et al. 2024, "TFG: Unified
    Training-Free Guidance for Diffusion Models", arXiv 2409.15761, algorithm 1; its variance
    guidance is DPS. TFG has the paper's algorithm as it is, with its recurrence and smoothing.

    Args:
        loss: (B, C, H, W) -> (B,), differentiable, each image by itself; it gets x0 unclipped. A
            recipe names a registered one, such as SquaredError.
        strength: any finite number; 0 is the model itself.
        view: the view through which the loss sees the image.
        iterations: gradients per step, 1 to 1000.
        interval: noise levels (low, high) within [0, 1] at which to steer.
        data_std: the standard deviation of a pixel of the images of one condition, above 0.
    """

    loss: Loss
    strength: float = 1.0
    view: str | Transform = "identity"
    iterations: int = 4
    interval: Sequence[float] = (0.0, 1.0)
    data_std: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        finite(self.strength, "Steer: strength")
        integer(self.iterations, "Steer: iterations", least=1, most=1000)
        positive(self.data_std, "Steer: data_std")

    @hookimpl
    def check(self, stack: Stack) -> None:
        super().check(stack)
        require_coder(stack.backend, "Steer")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        [estimate] = yield [request]
        if self.strength == 0 or not within(request.noise_level, self.interval):
            return estimate
        alpha, sigma = estimate.schedule.at(estimate.t)
        spread = (sigma * self.data_std) ** 2 / ((alpha * self.data_std) ** 2 + sigma**2)
        x0 = in_pixels(request.backend, lambda x0: self.minimum(x0, spread), estimate.x0)
        # Computed as a change of the noise, which also holds where alpha is 0.
        noise = estimate.noise + alpha / sigma * (estimate.x0 - x0)
        return estimate.replace(prediction=estimate.kind.target(x0, noise, alpha, sigma))

    def minimum(self, x0: Tensor, spread: float) -> Tensor:
        """The u (B, C, H, W) of least strength * loss(V u) + |u - x0|^2 / (2 spread)."""
        u, past = x0, None
        step: float | Tensor = spread
        for _ in range(self.iterations):
            slope = self._slope(u) + (u - x0) / spread
            if past is not None:
                moved, bent = u - past[0], slope - past[1]
                curvature = (moved * bent).sum((-3, -2, -1))
                length = torch.where(curvature > 0, squared(moved) / curvature, spread)
                step = length.clamp(max=spread)[:, None, None, None]
            past = u, slope
            u = u - step * slope
        return u

    def _slope(self, u: Tensor) -> Tensor:
        """strength * the gradient of loss(V u)."""
        gradient = loss_gradient(self.loss, self._view(u), "Steer")
        return self.strength * self._view.inverse(gradient)
