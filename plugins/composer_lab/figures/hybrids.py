"""Digits that read as one number from nearby and as another from afar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import Result
from composer_lab.figures.films import Turning
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet
from composer_plugins.backends.mnist.readers import CHOOSER, load_reader
from composer_plugins.filters import GaussianBlur
from composer_plugins.guidance.cfg import CFG
from composer_plugins.illusions.hybrid import Hybrid
from composer_plugins.steering.particles import Particles

PAIRS = ((0, 4), (1, 9), (0, 2))
"""(digit from afar, digit from nearby): pairs that share their place and slant."""
SIGMA = 3.0
FROM_AFAR = GaussianBlur(1.6 * SIGMA)


@dataclass(frozen=True, eq=False)
class ReadsFromAfar:
    """min of log P(high | image) and log P(low | image from afar), by the shipped chooser."""

    low: int
    high: int

    def __call__(self, x: Tensor) -> Tensor:
        seen = {self.high: x, self.low: stretched(FROM_AFAR(x))}
        reader = load_reader(CHOOSER)
        logits = [reader(image).log_softmax(1)[:, digit] for digit, image in seen.items()]
        return torch.stack(logits).amin(0)


def hybrid(lab: Lab, low: int, high: int, seeds: Iterable[int]) -> Result:
    """For each seed the best of several candidates, as the chooser ranks them."""
    best = Particles(ReadsFromAfar(low, high), ((1.0, lab.effort.candidates), (0.0, 1)))
    stack = [best, Hybrid(low=low, high=high, sigma=SIGMA), CFG(5.0)]
    return lab.sampler("mnist", stack, lab.effort.anagram_steps).sample(seeds=seeds)


def sheet(lab: Lab) -> Sheet:
    """One digit from nearby and another from afar; a blur imitates the distance."""
    groups = []
    for low, high in PAIRS:
        x = hybrid(lab, low, high, lab.seeds()).x
        nearby, afar = Row(f"nearby: {high}", x), Row(f"afar: {low}", stretched(FROM_AFAR(x)))
        groups.append([nearby, afar])
    return Sheet(
        "Hybrids: one digit from nearby, another from afar",
        groups,
        [f"seed {seed}" for seed in lab.seeds()],
        "Coarse shapes follow one class and fine strokes the other. Below each image is its blur "
        "with stretched contrast, as it looks across a room. Each is the best of "
        f"{lab.effort.candidates} candidates per seed.",
    )


def stretched(x: Tensor) -> Tensor:
    """Stretch the values of each image (B, C, H, W) to the range from -1 to 1."""
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return 2 * (x - low) / (high - low).clamp(min=1e-6) - 1


def film(lab: Lab) -> Turning:
    """A hybrid that moves far away and comes back."""
    low, high = PAIRS[0]
    result = hybrid(lab, low, high, lab.seeds(max(1, lab.effort.columns // 2)))
    return Turning(result, [f"nearby: {high}", f"afar: {low}"])
