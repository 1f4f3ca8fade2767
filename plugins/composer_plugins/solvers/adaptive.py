"""A solver that takes as many evaluations as a tolerance needs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from composer import Estimate, Plugin, Request, State, hookimpl
from composer.arguments import positive
from composer.schedules import Schedule

T = TypeVar("T")
Asking = Generator[list[Request], list[Estimate], T]
SHORTEST = 1e-3
"""The shortest step, as a share of the planned one; it is taken whatever its error."""


@dataclass(frozen=True)
class Adaptive(Plugin):
    """Bogacki and Shampine's third-order method with steps as short as ``tolerance`` requires.

    The plan stays as it is: plugins that act after a step, such as Inpaint, act at its times.
    Between two of them the solver takes steps of its own, so ``num_inference_steps`` may be as
    small as 1. ``result.stats`` counts all evaluations: three a step, one less at a planned time.

    Each image has steps of its own, so that it depends on its own seed alone. As for Heun, with
    u = x / (alpha + sigma) and tau = sigma / (alpha + sigma), du / dtau = k = noise - x_0, and with
    slopes at tau, tau + h / 2 and tau + 3h / 4

        u' = u + h (2 k_1 + 3 k_2 + 4 k_3) / 9,      error = rms(u' - (u + h k_2)),

    the difference to the midpoint rule. A step with a larger error than ``tolerance`` is repeated;
    the next is 0.9 (tolerance / error)^(1/3) times as long, at most 5 times and at least a fifth.
    Nothing is evaluated at the end of a step, where a model of the clean image does not exist.
    Below the lowest noise of training the step is Euler's.

    It declares ``reads_device``: it reads the errors of all images once a step.

    Bogacki & Shampine 1989, "A 3(2) pair of Runge-Kutta formulas".

    Args:
        tolerance: largest error of a step, in units of the image (range 2), above 0.
    """

    reads_device = True
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        positive(self.tolerance, "Adaptive: tolerance")

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        return schedule.times(num_steps)

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Asking[Tensor]:
        schedule = estimate.schedule
        start, end = (schedule.noise_level(t) for t in (estimate.t, state.t_next))
        lowest = max(end, min(start, _lowest(schedule)))
        selections, sizes = state.memory.get(self, (None, []))
        if selections != state.selections:
            sizes = [start - lowest] * len(state.x)
        images = _images(state, estimate, start, sizes)
        while moving := [image for image in images if image.tau > lowest]:
            yield from _advance(moving, lowest, self.tolerance, SHORTEST * (start - lowest))
        state.memory[self] = state.selections, [image.size for image in images]
        if end < lowest:  # Euler's step
            yield from _renew([image for image in images if image.stale])
            for image in images:
                image.u = image.moved(lowest - end, image.slope)
        return sum(schedule.at(state.t_next)) * torch.cat([image.u for image in images])


@dataclass
class _Image:
    """One image on its way.

    Attributes:
        request: its request, whose x and t are replaced.
        u: x / (alpha + sigma), (1, C, H, W).
        tau: its noise level.
        size: of its next step.
        slope: du / dtau.
        stale: whether ``slope`` is that of an earlier place.
    """

    request: Request
    u: Tensor
    tau: float
    size: float
    slope: Tensor
    stale: bool = False

    def moved(self, h: float, slope: Tensor) -> Tensor:
        """u at the noise level tau - h along a slope."""
        return self.u - h * slope


def _images(state: State, estimate: Estimate, tau: float, sizes: Sequence[float]) -> list[_Image]:
    request = state.request(estimate.x, estimate.t)
    us = (estimate.x / sum(estimate.schedule.at(estimate.t))).split(1)
    slopes = (estimate.noise - estimate.x0).split(1)
    return [
        _Image(request.rows(torch.tensor([k])), us[k], tau, sizes[k], slopes[k])
        for k in range(len(us))
    ]


def _advance(
    images: Sequence[_Image], end: float, tolerance: float, shortest: float
) -> Asking[None]:
    """Try one step of each image; an image whose error is too large stays where it is."""
    yield from _renew([image for image in images if image.stale])
    hs = [min(image.size, image.tau - end) for image in images]
    pairs = list(zip(images, hs, strict=True))
    second = yield from _slopes(images, [i.moved(h / 2, i.slope) for i, h in pairs], hs, 1 / 2)
    third = yield from _slopes(
        images, [i.moved(3 * h / 4, k) for (i, h), k in zip(pairs, second, strict=True)], hs, 3 / 4
    )
    means = [
        (2 * image.slope + 3 * k2 + 4 * k3) / 9
        for image, k2, k3 in zip(images, second, third, strict=True)
    ]
    gaps = torch.cat(means) - torch.cat(second)
    errors = gaps.square().flatten(1).mean(1).sqrt().tolist()
    for (image, h), mean, gap in zip(pairs, means, errors, strict=True):
        error = h * gap
        factor = 0.9 * (tolerance / error) ** (1 / 3) if error > 0 else 5.0
        size = max(h * min(max(factor, 0.2), 5.0), shortest)
        if error > tolerance and h > shortest:
            image.size = size
            continue
        # NaN too is let through, and the end of the run reports it.
        image.size = size if h == image.size else max(size, image.size)  # cut short at the end
        image.u, image.stale = image.moved(h, mean), True
        image.tau = end if h == image.tau - end else image.tau - h


def _renew(images: Sequence[_Image]) -> Asking[None]:
    """Evaluate the slopes of images where they are."""
    if not images:
        return
    slopes = yield from _slopes(images, [i.u for i in images], [0.0] * len(images), 0.0)
    for image, slope in zip(images, slopes, strict=True):
        image.slope, image.stale = slope, False


def _slopes(
    images: Sequence[_Image], us: Sequence[Tensor], hs: Sequence[float], share: float
) -> Asking[list[Tensor]]:
    """du / dtau of images at the values ``us``, after a ``share`` of their steps ``hs``."""
    requests = []
    for image, u, h in zip(images, us, hs, strict=True):
        schedule = image.request.backend.schedule
        time = schedule.time_at(image.tau - share * h)
        requests.append(image.request.replace(x=sum(schedule.at(time)) * u, t=time))
    estimates = yield requests
    for image in images:
        image.request.forget_views()
    return [estimate.noise - estimate.x0 for estimate in estimates]


def _lowest(schedule: Schedule) -> float:
    """The lowest noise level of training."""
    ends = schedule.training_times(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return min(schedule.noise_level(t) for t in ends.tolist())
