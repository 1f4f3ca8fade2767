"""What a region sees of a canvas while the layout of the image is decided."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from composer import Estimate, Request
from composer.authoring import generator_of, image_shape_of, to_device, to_latents


def bootstrapped(
    request: Request, conditions: Sequence[Any], masks: Tensor
) -> Generator[list[Request], list[Estimate], Estimate]:
    """sum_i m_i f(x_i, condition_i), where x_i is x within the region and a background elsewhere.

    Within the region means m_i > 0, so sum_i m_i x_i = x and the law of composition holds.

    Args:
        masks: (N, H, W) in float64 on the CPU, one per condition; they sum to one at each place.
    """
    x = request.x
    inside, weights = to_device(masks > 0, x.device), to_device(masks.to(x.dtype), x.device)
    seen = [torch.where(here, x, background(request, k)) for k, here in enumerate(inside)]
    answers = yield [
        request.replace(x=image).fill(condition)
        for image, condition in zip(seen, conditions, strict=True)
    ]
    variances = [answer.variance for answer in answers if answer.variance is not None]
    return answers[0].replace(
        prediction=_weighed(weights, [answer.prediction for answer in answers]),
        variance=_weighed(weights, variances) if variances else None,
        x=x,
    )


def background(request: Request, region: int) -> Tensor:
    """An image (1, C, H, W) of one random colour, noised to the time of a request.

    It depends on the step and the region alone, so that an image depends on its own seed alone.
    """
    backend, x = request.backend, request.x
    generator = generator_of(request.step, region)
    channels, *size = x.shape[1:] if backend is None else image_shape_of(backend)
    colour = 2 * torch.rand(channels, 1, 1, generator=generator) - 1
    noise = torch.randn(1, *x.shape[1:], generator=generator)
    image = to_device(colour.expand(1, -1, *size).to(x.dtype), x.device)
    clean = image if backend is None else to_latents(backend, image)
    noise = to_device(noise.to(x.dtype), x.device)
    return request.schedule.add_noise(clean, noise, request.t)  # type: ignore[union-attr]


def _weighed(weights: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([w * t for w, t in zip(weights, tensors, strict=True)]).sum(0)
