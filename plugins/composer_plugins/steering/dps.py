"""DPS: the gradient of a loss of the clean image, through the network."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from composer import Estimate, Request, Stack, Transform, hookimpl
from composer.arguments import finite, within
from composer.authoring import Loss, loss_gradient, to_images
from composer_plugins.steering.by_loss import ByLoss, require_differentiable, untracked


@dataclass(frozen=True, eq=False)
class DPS(ByLoss):
    """Sample about the model's density times exp(-strength * loss(V x)), V a view.

    With x0(x) the estimated clean image, the score gains -strength * grad_x loss(V x0(x)), so

        noise <- noise + sigma * strength * grad_x loss(V x0(x)).

    The gradient goes through the network and the plugins after it in the list, guidance and views
    included. For an exact model grad_x x0(x) = alpha / sigma^2 Cov[x_0 | x]: the clean image moves
    by -strength * Cov[x_0 | x] grad loss, along the directions in which the model leaves it open.
    ``Steer`` takes that covariance for a multiple of the identity, which needs no such gradient.

    A step costs about three times its time, and memory for the backward pass of its rows. The
    backend must declare ``differentiable``. Over latents the loss sees the decoded x0, and the
    gradient goes through the decoder too. The paper divides by the norm of the error, so that a
    step has the length ``strength``: write the loss as that norm, not its square.

    It leaves the law of composition on purpose: it works on the noise. It goes first in the list.
    At pure noise, where the clean image does not depend on x, it does nothing.

    Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems",
    arXiv 2209.14687, equation 16. TFG (arXiv 2409.15761) calls it variance guidance, and uses it
    together with the mean guidance of ``Steer``: put both in the list.

    Args:
        loss: (B, C, H, W) -> (B,), differentiable, each image by itself.
        strength: any finite number; 0 is the model itself and costs nothing.
        view: the view through which the loss sees the image.
        interval: noise levels (low, high) within [0, 1] at which to steer.
    """

    loss: Loss
    strength: float = 1.0
    view: str | Transform = "identity"
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        finite(self.strength, "DPS: strength")

    @hookimpl
    def check(self, stack: Stack) -> None:
        super().check(stack)
        require_differentiable(stack, "DPS")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        level = request.noise_level
        if self.strength == 0 or level == 1 or not within(level, self.interval):
            return (yield [request])[0]
        tracked = request.tracked()
        [estimate] = yield [tracked]
        with torch.enable_grad():
            seen = self._view(to_images(request.backend, estimate.x0))
        gradient = loss_gradient(self.loss, seen, "DPS", of=tracked.x)
        plain = untracked(estimate, request.x)
        _, sigma = plain.schedule.at(plain.t)
        return plain.with_noise(plain.noise + sigma * self.strength * gradient)
