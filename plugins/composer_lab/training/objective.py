"""The target that a network learns, and the inputs of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from composer.predictions import Prediction


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
class Objective:
    """A training objective: a path and the row (a, b) of the prediction on it."""

    schedule: TrainingPath
    prediction: Prediction


@dataclass(frozen=True)
class Batch:
    """One step's inputs and regression target; x and target (B, C, H, W), the rest (B,)."""

    x: Tensor
    times: Tensor
    labels: Tensor
    target: Tensor
