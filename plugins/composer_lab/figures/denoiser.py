"""The one-step denoiser of the course's first half: off its level, and on noise alone."""

from __future__ import annotations

import torch

from composer_lab.figures.drawn import shipped
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet
from composer_lab.training.denoiser import sweep

MEAN_DIGIT = "mean-digit.png"
"""Of the 60,000 training images."""


def out_of_distribution(lab: Lab) -> Sheet:
    """Noise of other levels than the one that the denoiser was trained on."""
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
        f"Trained at {lab.names['denoiser']}. Below, it still does well; above, it mends what it "
        "takes for noise of its own level and leaves the rest, as blots and gaps.",
    )


def pure_noise(lab: Lab) -> Sheet:
    """A denoiser of noise alone answers the mean digit, whatever it is shown."""
    z = lab.noise(lab.effort.columns)
    answers = lab.denoisers["pure noise"]()(z)
    mean = shipped(MEAN_DIGIT)
    apart = float((answers - answers.mean(0)).square().mean().sqrt()) / 2
    off = float((answers.mean(0) - mean).square().mean().sqrt()) / 2
    return Sheet(
        f"Denoising collapses to the mean digit: {lab.names['pure noise']}",
        [[Row("noise z", z), Row("D(z)", answers), Row("E[x]", mean)]],
        [f"z {number}" for number in range(1, len(z) + 1)],
        "Least squares wants D(z) = E[x | z]. Noise that was drawn apart from x tells nothing of "
        "it, so E[x | z] = E[x]: the mean of the training images, in the last row, the same for "
        "every z. In root mean square the answers differ from their mean by "
        f"{apart:.1%} of the range of pixels, and that from E[x] by {off:.1%}. One step cannot "
        "make a digit of noise; many can, because after each there is less noise, and more is "
        "told.",
    )
