"""Present a backend on another path or with another prediction type, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from composer._checks import checked_backend
from composer.backend_wrapper import BackendWrapper
from composer.batch import Batch, Output, grouped
from composer.predictions import Prediction
from composer.protocols import Backend
from composer.schedules import Schedule
from composer.solvers import Solver


@dataclass(frozen=True, eq=False, repr=False)
class Reparametrised(BackendWrapper):
    """The model of ``inner`` on the path ``schedule``, with outputs of type ``prediction``.

    Two points of two paths with the same signal-to-noise ratio are the same image up to a factor:

        x_inner = (alpha_inner + sigma_inner) / (alpha + sigma) * x,

    and both models have the same x_0 and noise there. If the network is trained in this form, it is
    a preconditioning: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based
    Generative Models", arXiv 2206.00364, section 5.

    Args:
        inner: any backend; a learned variance is dropped, because it belongs to the inner path.
        schedule, prediction: the path and prediction type to present.
        default_solver: the default solver to present.
    """

    inner: Backend
    schedule: Schedule
    prediction: Prediction
    default_solver: Solver

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", checked_backend(self.inner))

    def evaluate(self, batch: Batch) -> Output:
        places = {t: self._inner_time(t) for t in dict.fromkeys(batch.times)}
        scales = torch.tensor([places[t][1] for t in batch.times], dtype=batch.x.dtype)
        # A row at another time shows the inner model another image.
        shown = {pair: k for k, pair in enumerate(zip(batch.images, batch.times, strict=True))}
        asked = batch.replace(
            x=batch.x * scales.to(batch.x.device)[:, None, None, None],
            times=[places[t][0] for t in batch.times],
            images=[shown[pair] for pair in zip(batch.images, batch.times, strict=True)],
        )
        answer, groups = self.inner.evaluate(asked), grouped(batch.times)
        answers = [
            self._answer(batch.times[rows[0]], asked.take(rows), answer.take(rows))
            for rows in groups
        ]
        return Output.gathered(answers, groups)

    def _inner_time(self, t: float) -> tuple[float, float]:
        """The inner time of equal noise level, and the factor of x."""
        time = self.inner.schedule.time_at(self.schedule.noise_level(t))
        return time, sum(self.inner.schedule.at(time)) / sum(self.schedule.at(t))

    def _answer(self, t: float, asked: Batch, answer: Output) -> Output:
        """The output of rows of one time t, on this path."""
        place = self.inner.schedule.at(asked.times[0])
        x0 = self.inner.prediction.x0(answer.prediction, asked.x, *place)
        noise = self.inner.prediction.noise(answer.prediction, asked.x, *place)
        return Output(self.prediction.target(x0, noise, *self.schedule.at(t)))
