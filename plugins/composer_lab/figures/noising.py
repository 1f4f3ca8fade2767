"""The forward process, and denoising by a filter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from composer.schedules import DiscreteSchedule, FlowSchedule, Schedule
from composer_lab.figures.curves import Curves, Line, Panel
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet
from composer_lab.training.denoiser import SIGMAS
from composer_lab.training.denoiser import noised as with_noise
from composer_plugins.filters import GaussianBlur

PLACES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the way from image to noise, along the model's clock."""
BLUR = GaussianBlur(2.0)


def noising(lab: Lab) -> Sheet:
    """Digits with more and more noise: z = x + sigma noise."""
    images = lab.digits(range(5))
    z = torch.stack([with_noise(images, sigma, lab.seed) for sigma in SIGMAS], 1)
    return Sheet(
        "Noising: z = x + σ · noise, x in [0, 1]",
        [[Row(str(digit), strip) for digit, strip in enumerate(z)]],
        [f"σ = {sigma:g}" for sigma in SIGMAS],
        "Each row has one noise, scaled. At σ = 0.5, the level of the one-step denoiser, every "
        "digit is still easy to read; at 1 hardly.",
    )


def noised(schedule: Schedule, image: Tensor, noise: Tensor) -> tuple[Tensor, list[float]]:
    """The forward process x_t = alpha(t) x_0 + sigma(t) noise at PLACES, and the times."""
    clean = schedule.time_at(0.0)
    noisiest = schedule.times(1)[0]
    times = [clean + place * (noisiest - clean) for place in PLACES]
    return torch.cat([schedule.add_noise(image, noise, time) for time in times]), times


def forward(lab: Lab) -> Sheet:
    """The forward process of both schedules, and a Gaussian blur's attempt to undo it."""
    image, noise = lab.digits([5]), lab.noise()
    groups = []
    for name, model in (("flow", "mnist"), ("DDPM", "mnist-ddpm")):
        schedule = lab.models[model]().schedule
        x, times = noised(schedule, image, noise)
        notes = [f"t = {time:.3g}" for time in times]
        groups.append([Row(f"{name}: x_t", x, notes), Row("blurred, σ 2", BLUR(x))])
    return Sheet(
        "The forward process: x_t = α(t) x_0 + σ(t) noise",
        groups,
        [f"{place:.0%}" for place in PLACES],
        "Columns are shares of the way from image to noise along each model's clock. The flow's "
        "clock runs from 1 (image) to 0 (noise), DDPM's from -1 to 999, most of it in heavy noise. "
        "A blur removes the noise together with the digit.",
    )


def schedules(lab: Lab) -> Curves:
    """The amplitudes of image and noise in x_t, for four schedules."""
    known: dict[str, Schedule] = {
        "flow": FlowSchedule(),
        "DDPM, T = 1000 (shipped)": DiscreteSchedule.linear(),
        "DDPM, T = 300 (the course)": DiscreteSchedule.linear(300),
        "DDPM, cosine": cosine(1000),
    }
    places = torch.linspace(0, 1, 201, dtype=torch.float64)
    amplitudes = {}
    for name, schedule in known.items():
        clean, noisiest = schedule.time_at(0.0), schedule.times(1)[0]
        alpha, sigma = schedule.alpha_sigma(clean + places * (noisiest - clean))
        amplitudes[name] = alpha, sigma
    where = "share of the way from image to noise"
    panels = [
        Panel(
            title,
            {name: [Line(places, pair[which])] for name, pair in amplitudes.items()},
            where,
            symbol,
        )
        for which, (title, symbol) in enumerate((("the image's part", "α"), ("the noise's", "σ")))
    ]
    return Curves(
        "Schedules: x_t = α x_0 + σ noise",
        panels,
        "With the course's 300 steps α ends at .22, so x_T is not pure noise. A sampler that "
        "starts from pure noise starts where the network was not trained.",
    )


def cosine(steps: int) -> DiscreteSchedule:
    """Nichol & Dhariwal 2021, arXiv 2102.09672, equation 17."""
    from diffusers import DDPMScheduler  # noqa: PLC0415  # takes a second

    scheduler: Any = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2")
    return DiscreteSchedule(scheduler.alphas_cumprod)
