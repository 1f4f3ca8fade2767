"""Training a velocity network on the loss of another path and prediction type."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from composer.schedules import DiscreteSchedule
from composer_lab.training.objective import Objective


class Preconditioned(nn.Module):
    """A velocity network on the straight path, converted to the prediction of ``objective``.

    With s = alpha + sigma, the network F is evaluated at x / s and the time alpha / s. Its velocity
    implies x_0 and noise, and these imply the prediction. All inputs have unit scale. An epsilon
    network must copy the noise at high levels through all its layers; here the noise passes around
    the network (Karras et al. 2022, arXiv 2206.00364, section 5). At sampling time
    ``composer.reparametrised`` does the same.
    """

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        if not isinstance(objective.schedule, DiscreteSchedule):
            raise TypeError(
                "objective must have a discrete schedule. Train a flow network directly on a flow."
            )
        self.network, self.objective = network, objective
        self.count = len(objective.schedule)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """x (B, C, H, W), times t / T (B,) in [0, 1), labels (B,) -> the prediction at x."""
        schedule = self.objective.schedule
        alpha, sigma = schedule.alpha_sigma((times * self.count).round())
        scale = alpha + sigma
        time = (alpha / scale).to(x.dtype)
        alpha, sigma, scale, here = (
            v.to(x.dtype)[:, None, None, None] for v in (alpha, sigma, scale, time)
        )
        straight = x / scale
        velocity = cast(Tensor, self.network(straight, time, labels))
        # FLOW's row solved on the straight path, whose amplitudes are here and 1 - here.
        x0, noise = straight + (1 - here) * velocity, straight - here * velocity
        return self.objective.prediction.target(x0, noise, alpha, sigma)
