"""The backend that proves the law of composition: its prediction is its input."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch

from composer.batch import Batch, Output
from composer.named import device_of, dtype_of, prediction_of
from composer.predictions import FLOW, Prediction
from composer.schedules import FlowSchedule, Schedule
from composer.solvers import Euler, Solver
from composer.words import short_repr


@dataclass(frozen=True, eq=False, repr=False)
class IdentityBackend:
    """f(x) = x for every condition: the estimate of each lawful stack at x is x exactly.

    A plugin sends views V_i x and combines the answers with linear maps A_i. It is lawful if
    sum_i A_i V_i = I; its sample then does not depend on the model's prediction type.

    Args:
        shape: (C, H, W) of the images.
        schedule, prediction, dtype: any.
    """

    shape: tuple[int, int, int] = (1, 28, 28)
    schedule: Schedule = FlowSchedule()
    prediction: Prediction = FLOW
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")
    default_solver: Solver = Euler()

    differentiable = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "prediction", prediction_of(self.prediction))
        object.__setattr__(self, "dtype", dtype_of(self.dtype))
        object.__setattr__(self, "device", device_of(self.device))

    def encode(self, condition: Any) -> Hashable:
        return condition  # type: ignore[no-any-return]

    def evaluate(self, batch: Batch) -> Output:
        return Output(batch.x)
