"""A backend whose data distribution and exact model are known in closed form."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from composer.arguments import label_of, positive, sequence
from composer.batch import Batch, Output, grouped
from composer.errors import shown
from composer.named import dtype_of, prediction_of
from composer.predictions import FLOW, Prediction
from composer.requests import UNCONDITIONAL
from composer.schedules import FlowSchedule, Schedule
from composer.solvers import Euler, Solver
from composer.words import short_repr


@dataclass(frozen=True, eq=False, repr=False)
class GaussianMixtureBackend:
    """The exact model of data ~ sum_k w_k N(mu_k, s_k^2 I); condition k is component k alone.

    On the path x = alpha x_0 + sigma noise, x given component k is N(alpha mu_k, v_k I) with
    v_k = alpha^2 s_k^2 + sigma^2, so

        E[x_0 | x] = sum_k r_k(x) (mu_k + alpha s_k^2 / v_k (x - alpha mu_k)),

    r_k the posterior weights. The prediction is a E[x_0 | x] + b E[noise | x].

    Args:
        means: (K, C, H, W).
        stds: K numbers s_k > 0.
        weights: K numbers; None for equal.
        schedule, prediction: any path and any prediction type.
        dtype: the dtype of x and of the arithmetic.
    """

    means: Tensor
    stds: Sequence[float]
    weights: Sequence[float] | None = None
    schedule: Schedule = FlowSchedule()
    prediction: Prediction = FLOW
    dtype: torch.dtype = torch.float64
    default_solver: Solver = Euler()

    differentiable = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not isinstance(self.means, Tensor):
            raise TypeError(f"means must be a tensor (K, C, H, W), got {shown(self.means)}.")
        weights = [1.0] if self.weights is None else self.weights
        for name, values in (("stds", self.stds), ("weights", weights)):
            for number in sequence(values, name):
                positive(number, name)
        if self.means.ndim != 4 or len(self.means) != len(self.stds):
            raise ValueError(
                f"means must be (K, C, H, W) with K = len(stds), got {tuple(self.means.shape)} "
                f"and {len(self.stds)} stds."
            )
        if self.weights is not None and len(self.weights) != len(self.stds):
            raise ValueError(
                f"weights must be {len(self.stds)}, one per component, got {len(self.weights)}."
            )
        object.__setattr__(self, "prediction", prediction_of(self.prediction))
        object.__setattr__(self, "dtype", dtype_of(self.dtype))

    @property
    def shape(self) -> tuple[int, int, int]:
        _, c, h, w = self.means.shape
        return c, h, w

    @property
    def device(self) -> torch.device:
        return self.means.device

    def encode(self, condition: Any) -> Hashable:
        if condition is UNCONDITIONAL:
            return UNCONDITIONAL  # type: ignore[no-any-return]
        component = label_of(condition)
        if component not in range(len(self.means)):
            raise ValueError(
                f"a condition must be a component from 0 to {len(self.means) - 1}, "
                f"got {shown(condition)}."
            )
        return component

    def evaluate(self, batch: Batch) -> Output:
        groups = grouped([*zip(batch.times, batch.conditions, strict=True)])
        return Output.gathered([self._predict(batch.take(rows)) for rows in groups], groups)

    def _predict(self, batch: Batch) -> Output:
        """The output of rows of one time and condition."""
        alpha, sigma = self.schedule.at(batch.times[0])
        x0 = self.posterior_mean(batch.x, alpha, sigma, batch.conditions[0])
        noise = (batch.x - alpha * x0) / sigma if sigma > 0 else torch.zeros_like(x0)
        return Output(self.prediction.target(x0, noise, alpha, sigma))

    def posterior_mean(self, x: Tensor, alpha: float, sigma: float, condition: Any) -> Tensor:
        """E[x_0 | x] (B, C, H, W)."""
        chosen = list(range(len(self.means))) if condition is UNCONDITIONAL else [condition]
        means = self.means[chosen].to(x.dtype)
        prior = torch.tensor(self.weights or [1.0] * len(self.means))[chosen].to(x)
        stds = torch.tensor([self.stds[k] for k in chosen]).to(x)
        variances = alpha**2 * stds**2 + sigma**2
        gaps = x[:, None] - alpha * means
        dims = means[0].numel()
        log_weights = (
            prior.log()
            - 0.5 * dims * variances.log()
            - 0.5 * gaps.square().flatten(2).sum(-1) / variances
        )
        posterior = log_weights.softmax(1)[:, :, None, None, None]
        gains = (alpha * stds**2 / variances)[:, None, None, None]
        return (posterior * (means + gains * gaps)).sum(1)
