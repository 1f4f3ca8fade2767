"""Hybrid digits: one number from afar (shown shrunk and blurred), another from nearby."""

from pathlib import Path

import composer
from composer import Sampler
from composer_plugins import CFG, GaussianBlur, Hybrid
from composer_plugins.sheet import contact_sheet

PAIRS = [(0, 1), (3, 7), (8, 4)]
SIGMA = 4.0  # in pixels of a 64-pixel image


def main(out: Path, seeds: int = 10, steps: int = 20) -> Path:
    backend = composer.load_backend("mnist")
    afar = GaussianBlur(2 * SIGMA)
    rows = {}
    for low, high in PAIRS:
        stack = [Hybrid(low=low, high=high, sigma=SIGMA), CFG(4.0)]
        x = Sampler(backend, stack, num_inference_steps=steps).sample(seeds=range(seeds)).x
        rows[f"{high} from nearby"] = x
        rows[f"{low} from afar"] = afar(x)
    file = out / "hybrids.png"
    contact_sheet(rows).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
