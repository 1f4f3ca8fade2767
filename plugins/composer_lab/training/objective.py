"""What a network learns: the inputs and the target of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from composer.predictions import Prediction
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import stratified


class TrainingPath(Protocol):
    """x = alpha(t) x_0 + sigma(t) noise: the part of a Schedule that training uses."""

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise amplitudes at times ``t`` (B,)."""
        ...

    def training_times(self, places: Tensor) -> Tensor:
        """Times at ``places`` (B,) in [0, 1] of the way along the clock."""
        ...

    def unit_time(self, t: Tensor) -> Tensor:
        """The times in [0, 1] that the network takes."""
        ...


@dataclass(frozen=True)
class Batch:
    """One step's inputs, rows (B, ...) of each, and its regression target (B, C, H, W)."""

    inputs: tuple[Tensor, ...]
    target: Tensor


class Task(Protocol):
    """What a Trainer teaches its network."""

    def batch(
        self,
        x0: Tensor,
        labels: Tensor,
        num_classes: int,
        config: TrainingConfig,
        generator: torch.Generator,
    ) -> Batch:
        """The inputs and the target of one step, whose random numbers ``generator`` draws.

        Args:
            x0: (B, C, H, W).
            labels: (B,), below ``num_classes``.
        """
        ...

    def identity(self) -> dict[str, object]:
        """The settings that a checkpoint must have in order to be resumed."""
        ...


@dataclass(frozen=True)
class Objective:
    """Regression on a path: noise x_0 to x_t, and learn ``a * x_0 + b * noise``.

    The inputs are x_t, times in [0, 1] and labels, of which ``num_classes`` means unconditional.

    Args:
        prediction: its row (a, b).
    """

    schedule: TrainingPath
    prediction: Prediction

    def batch(
        self,
        x0: Tensor,
        labels: Tensor,
        num_classes: int,
        config: TrainingConfig,
        generator: torch.Generator,
    ) -> Batch:
        places = stratified(len(x0), generator, config.logit_normal)
        times = self.schedule.training_times(places)
        noise = torch.randn(x0.shape, generator=generator)
        dropped = torch.rand(len(x0), generator=generator) < config.class_drop
        labels = labels.masked_fill(dropped, num_classes)
        alpha, sigma = (v.float()[:, None, None, None] for v in self.schedule.alpha_sigma(times))
        x = alpha * x0 + sigma * noise
        target = self.prediction.target(x0, noise, alpha, sigma)
        return Batch((x, self.schedule.unit_time(times).float(), labels), target)

    def identity(self) -> dict[str, object]:
        return {"schedule": type(self.schedule).__name__, "prediction": self.prediction.name}
