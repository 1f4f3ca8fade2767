"""The one-step denoiser of the course's first half, at other noise levels and on pure noise."""

from __future__ import annotations

import torch

from composer_lab.figures.drawn import shipped
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet
from composer_lab.training.denoiser import sweep

MEAN_DIGIT = "mean-digit.png"
"""The mean of the 60,000 training images."""


def out_of_distribution(lab: Lab) -> Sheet:
    """The denoiser at other noise levels than the one it was trained on."""
    digits = lab.digits((7, 2, 5))
    found = sweep(lab.denoisers["denoiser"](), digits, seed=lab.seed)
    pairs = [torch.stack([noisy, estimate], 1) for noisy, estimate in found.values()]
    groups = [
        [Row(what, strip) for what, strip in zip(("noisy", "denoised"), both, strict=True)]
        for both in torch.stack(pairs, 2)  # (B, 2, sigmas, 1, 28, 28)
    ]
    return Sheet(
        "The one-step denoiser off its noise level",
        groups,
        [f"σ = {sigma:g}" for sigma in found],
        f"Trained at {lab.names['denoiser']}. At lower levels it still does well. At higher levels "
        "it removes too little noise and leaves blots and gaps.",
    )


def pure_noise(lab: Lab) -> Sheet:
    """A denoiser trained on pure noise estimates the mean digit for every input."""
    z = lab.noise(lab.effort.columns)
    answers = lab.denoisers["pure noise"]()(z)
    mean = shipped(MEAN_DIGIT)
    apart = float((answers - answers.mean(0)).square().mean().sqrt()) / 2
    off = float((answers.mean(0) - mean).square().mean().sqrt()) / 2
    return Sheet(
        f"Denoising collapses to the mean digit: {lab.names['pure noise']}",
        [[Row("noise z", z), Row("D(z)", answers), Row("E[x]", mean)]],
        [f"z {number}" for number in range(1, len(z) + 1)],
        "Least squares is minimal at D(z) = E[x | z]. Noise that is independent of x gives "
        "E[x | z] = E[x], the mean of the training images (last row), for every z. In root mean "
        f"square the estimates differ from their mean by {apart:.1%} of the range of pixels, and "
        f"that mean from E[x] by {off:.1%}. One step cannot make a digit from noise. Many steps "
        "can, because after each one x_t holds less noise and more information.",
    )
