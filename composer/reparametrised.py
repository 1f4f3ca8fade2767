"""A backend shown on another path, or speaking another prediction type, exactly."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from composer.predictions import Prediction
from composer.protocols import Backend, Output
from composer.requests import Request
from composer.schedules import Schedule
from composer.solvers import Solver
from composer.weights import networks_of
from composer.words import short_repr


@dataclass(frozen=True, eq=False, repr=False)
class Reparametrised:
    """The model of ``inner``, asked on ``schedule`` and answering as ``prediction``.

    Two points of two paths with the same signal-to-noise ratio are the same image up to a factor:

        x_inner = (alpha_inner + sigma_inner) / (alpha + sigma) * x,

    and the inner model's x_0 and noise there are this one's. Around a network that is trained so,
    it is a preconditioning: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based
    Generative Models", arXiv 2206.00364, section 5.

    Args:
        inner: any backend; a learned variance is dropped, for it belongs to the inner path.
        schedule, prediction: of the backend shown.
        default_solver: of the backend shown.
    """

    inner: Backend
    schedule: Schedule
    prediction: Prediction
    default_solver: Solver

    __repr__ = short_repr

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.inner.shape

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    @property
    def networks(self) -> dict[str, nn.Module]:
        return networks_of(self.inner)

    def encode(self, condition: Any) -> Hashable:
        return self.inner.encode(condition)

    def evaluate(self, requests: Sequence[Request]) -> list[Output]:
        # One tensor for all requests about one, so that the inner backend can still share.
        scaled: dict[tuple[int, float], Tensor] = {}
        asked = []
        for request in requests:
            time, scale = self._inner_time(request.t)
            key = id(request.x), request.t
            x = scaled.setdefault(key, request.x * scale)
            asked.append(replace(request, x=x, t=time, schedule=self.inner.schedule))
        answers = self.inner.evaluate(asked)
        return [
            self._answer(request, inside, answer)
            for request, inside, answer in zip(requests, asked, answers, strict=True)
        ]

    def _inner_time(self, t: float) -> tuple[float, float]:
        """The inner time of equal noise level, and the factor of x."""
        time = self.inner.schedule.time_at(self.schedule.noise_level(t))
        return time, sum(self.inner.schedule.at(time)) / sum(self.schedule.at(t))

    def _answer(self, request: Request, inside: Request, answer: Output) -> Output:
        place = self.inner.schedule.at(inside.t)
        x0 = self.inner.prediction.x0(answer.prediction, inside.x, *place)
        noise = self.inner.prediction.noise(answer.prediction, inside.x, *place)
        return Output(self.prediction.target(x0, noise, *self.schedule.at(request.t)))
