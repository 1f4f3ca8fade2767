"""Denoising in one step and in many: what iterating buys."""

from __future__ import annotations

import torch
from torch import Tensor

from composer import State
from composer_lab.figures.lab import Lab
from composer_lab.figures.noising import BLUR
from composer_lab.figures.sheets import Row, Sheet
from composer_plugins.editing.sdedit import SDEdit

MODEL = "mnist-ddpm"
STARTS = (0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25)
"""Where on the way from noise to image denoising begins."""
DIGIT = 2
SNAPSHOTS = 9


def one_step(lab: Lab, image: Tensor, noise: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """x_t, and the clean image that the model, told the digit, estimates from it at once."""
    x = lab.models[MODEL]().schedule.add_noise(image, noise, t)
    return x, lab.sampler(MODEL).denoise(x, t, DIGIT).x0


def iterative(lab: Lab, image: Tensor, start: int) -> list[State]:
    """Every state on the way from the image noised to ``times[start]`` to a clean image."""
    sampler = lab.sampler(MODEL, [SDEdit(image, i_start=start)])
    return list(sampler.stream(DIGIT, [lab.seed]))


def denoising(lab: Lab) -> Sheet:
    """A noised digit denoised by a blur, in one step, and iteratively."""
    image, noise = lab.digits([DIGIT]), lab.noise()
    times = lab.sampler(MODEL).times
    starts = [lab.effort.start(share) for share in STARTS]
    pairs = [one_step(lab, image, noise, times[start]) for start in starts]
    noised, estimates = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    many = torch.cat([iterative(lab, image, start)[-1].x for start in starts])
    rows = [
        Row("noised, x_t", noised),
        Row("Gaussian blur", BLUR(noised)),
        Row("one step", estimates),
        Row("many steps", many),
        Row("the digit", image),
    ]
    return Sheet(
        "One step against many",
        [rows],
        [f"t = {times[start]:g}" for start in starts],
        f"The model is told that it is a {DIGIT}. The noisier x_t is, the blurrier the estimate in "
        f"one step: it is E[x_0 | x_t], the mean of all that x_t may have been. Iterating commits "
        "to one of them, which from far away is another's hand.",
    )


def snapshots(lab: Lab) -> Sheet:
    """Iterative denoising from noise on the way: x_t, and the clean image as estimated there."""
    image = lab.digits([DIGIT])
    states = iterative(lab, image, lab.effort.start(0.15))
    chosen = torch.linspace(0, len(states) - 1, min(SNAPSHOTS, len(states))).round().int().tolist()
    given = [state.estimate for k, state in enumerate(states) if k in chosen]
    shown = [estimate for estimate in given if estimate is not None]
    rows = [
        Row("x_t", torch.cat([*(estimate.x for estimate in shown), states[-1].x])),
        Row("x_0, estimated", torch.cat([estimate.x0 for estimate in shown])),
        Row("the digit", image),
    ]
    return Sheet(
        "Iterative denoising, step by step",
        [rows],
        [*(f"t = {estimate.t:g}" for estimate in shown), "the end"],
        "Each step goes a little way towards the clean image as estimated, and asks again. The "
        f"model is told that it is a {DIGIT}.",
    )
