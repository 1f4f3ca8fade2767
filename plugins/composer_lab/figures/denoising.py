"""Denoising in one step and in many steps."""

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
"""Shares of the way from noise to image at which denoising begins."""
DIGIT = 2
SNAPSHOTS = 9


def one_step(lab: Lab, image: Tensor, noise: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """x_t, and the clean image that the conditional model estimates from it in one step."""
    x = lab.models[MODEL]().schedule.add_noise(image, noise, t)
    return x, lab.sampler(MODEL).denoise(x, t, DIGIT).x0


def iterative(lab: Lab, image: Tensor, start: int) -> list[State]:
    """Every state from the image noised to ``times[start]`` to a clean image."""
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
        f"The condition is {DIGIT}. The noisier x_t is, the blurrier is the estimate in one step: "
        "it is E[x_0 | x_t], the mean of all images that x_t may come from. Iterating chooses one "
        "of them; from much noise it is another writer's digit.",
    )


def snapshots(lab: Lab) -> Sheet:
    """Steps of iterative denoising: x_t, and the clean image estimated from it."""
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
        "Each step moves a little towards the estimated clean image, and estimates again. The "
        f"condition is {DIGIT}.",
    )
