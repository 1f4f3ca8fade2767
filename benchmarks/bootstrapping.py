"""The share of a digit's ink that lies in its region, with and without ``bootstrap``.

python benchmarks/bootstrapping.py
"""

from __future__ import annotations

import torch

import composer
from composer import UNCONDITIONAL, Sampler
from composer_plugins import CFG, Canvas, Regions

INTERVALS = None, (0.8, 1.0), (0.6, 1.0), (0.4, 1.0)
DIGITS, SEEDS, STEPS = (0, 3, 8), range(12), 15


def main() -> None:
    canvas = Canvas(composer.load_backend("mnist"), (28, 28), 0.75)
    inside = torch.zeros(28, 28)
    inside[4:24, 14:26] = 1
    for interval in INTERVALS:
        shares = []
        for digit in DIGITS:
            regions = Regions((digit, UNCONDITIONAL), (inside, 1 - inside), bootstrap=interval)
            sampler = Sampler(canvas, [regions, CFG(3.0)], num_inference_steps=STEPS)
            ink = (sampler.sample(seeds=SEEDS).x.clamp(-1, 1) + 1) / 2
            shares.append((ink * inside).sum((1, 2, 3)) / ink.sum((1, 2, 3)))
        share = torch.cat(shares)
        print(f"{interval!s:12} {share.mean():.3f} +- {share.std() / len(share) ** 0.5:.3f}")


if __name__ == "__main__":
    main()
