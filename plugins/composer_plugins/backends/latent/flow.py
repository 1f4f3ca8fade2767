"""The plan of a flow model, as its scheduler makes it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from composer.arguments import integer
from composer.limits import MAX_STEPS
from composer.schedules import FlowSchedule

Levels = Callable[[int], list[float]]


def from_one(steps: int) -> list[float]:
    """1, 1 - 1/n, ..., 1/n."""
    return [float(level) for level in np.linspace(1.0, 1 / steps, steps)]


def from_one_rounded(steps: int) -> list[float]:
    """The same in float32, as the pipeline of Z-Image computes them."""
    return [float(level) for level in torch.linspace(1.0, 1 / steps, steps)]


@dataclass(frozen=True, eq=False, repr=False)
class ScheduledFlow(FlowSchedule):
    """The straight path, visited at the noise levels of a FlowMatchEulerDiscreteScheduler.

    Its clock runs from 0 (noise) to 1 (image), that of the scheduler from 1000 to 0; the noise
    levels sigma are the same, shifted towards noise where the scheduler says so:
    sigma' = s sigma / (1 + (s - 1) sigma), with s fixed, or exp(mu) for a number of image tokens.

    Esser et al. 2024, "Scaling Rectified Flow Transformers", arXiv 2403.03206, section 5.3.2.

    Args:
        scheduler: a FlowMatchEulerDiscreteScheduler; the flow copies it.
        mu: parameter of a shift that depends on the size of the images, or None.
        levels: function from n to the n noise levels before the shift, as in the pipeline; None for
            the scheduler's own.
    """

    scheduler: Any
    mu: float | None = None
    levels: Levels | None = None

    def __repr__(self) -> str:
        return f"ScheduledFlow({type(self.scheduler).__name__}, mu={self.mu})"

    def times(self, num_steps: int) -> list[float]:
        steps = integer(num_steps, "num_steps", 1, MAX_STEPS)
        planned = copy.deepcopy(self.scheduler)
        given: dict[str, Any] = {"num_inference_steps": steps}
        if self.levels is not None:
            given = {"sigmas": self.levels(steps)}
        planned.set_timesteps(**given, mu=self.mu)
        # Exact: one minus a float32 is a float64, so the network sees the scheduler's own levels.
        return [1.0 - level for level in planned.sigmas.double().tolist()]


def shift_for(config: Any, tokens: int) -> float:
    """mu of a scheduler's configuration, for an image of ``tokens`` tokens: linear in these."""
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (most - fewest)
    return float(low + slope * (tokens - fewest))
