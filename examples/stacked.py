"""Everything at once: an anagram, a hybrid in one of its views, inpainting, SDEdit, guidance."""

from pathlib import Path

import torch

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, Anagram, Hybrid, Inpaint, SDEdit
from composer_plugins.backends.mnist import sample_digits


def main(out: Path, seeds: int = 10, steps: int = 20) -> Path:
    backend = composer.load_backend("mnist")
    images, labels = sample_digits()
    six = images[labels == 6][0]
    mask = torch.zeros(28, 28)
    mask[:, 8:] = 1  # the left edge is kept
    sampler = Sampler(
        backend,
        [
            SDEdit(six, strength=0.9),
            Inpaint(six, mask, "renoise"),
            Anagram({"identity": Hybrid(low=6, high=8, sigma=3.0), "rotate_180": 9}),
            CFG(4.0),
        ],
        num_inference_steps=steps,
    )
    result = sampler.sample(seeds=range(seeds))
    rows = {"6 (8 in detail)": result.x, "9, turned": result.x.flip(-2, -1)}
    print(f"{result.stats.evaluated} rows an image in {result.stats.calls} model calls")
    file = out / "stacked.png"
    contact_sheet(rows).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
