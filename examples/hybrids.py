"""Hybrid digits: one number from nearby, another from afar (shown blurred, contrast stretched)."""

from pathlib import Path

from torch import Tensor

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, GaussianBlur, Hybrid

PAIRS = [(0, 4), (3, 7), (8, 4)]
SIGMA = 3.0  # in pixels of a 64-pixel image


def from_afar(x: Tensor) -> Tensor:
    blurred = GaussianBlur(1.6 * SIGMA)(x)
    low, high = (blurred.amin((1, 2, 3), keepdim=True), blurred.amax((1, 2, 3), keepdim=True))
    return 2 * (blurred - low) / (high - low) - 1


def main(out: Path, seeds: int = 10, steps: int = 20) -> Path:
    backend = composer.load_backend("mnist")
    rows = {}
    for low, high in PAIRS:
        stack = [Hybrid(low=low, high=high, sigma=SIGMA), CFG(5.0)]
        x = Sampler(backend, stack, num_inference_steps=steps).sample(seeds=range(seeds)).x
        rows[f"{low} / {high}, nearby: {high}"] = x
        rows[f"{low} / {high}, afar: {low}"] = from_afar(x)
    file = out / "hybrids.png"
    contact_sheet(rows).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
