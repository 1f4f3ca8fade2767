"""The lower half of real digits is removed and made anew, in three ways."""

from pathlib import Path

import torch

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, Inpaint
from composer_plugins.backends.mnist import sample_digits


def main(out: Path, seeds: int = 10, steps: int = 20) -> Path:
    backend = composer.load_backend("mnist")
    images, _ = sample_digits()
    digits = images[:seeds]
    mask = torch.zeros(28, 28)
    mask[14:] = 1  # 1 = repaint
    rows = {"test digit": digits, "what is kept": torch.where(mask == 1, -0.5, digits)}
    for mode in ("clean", "renoise", "repaint"):
        sampler = Sampler(backend, [Inpaint(digits, mask, mode)], num_inference_steps=steps)
        rows[mode] = sampler.sample(seeds=range(seeds)).x
    for wish in (3, 8):
        stack = [Inpaint(digits, mask, "repaint"), CFG(4.0)]
        sampler = Sampler(backend, stack, num_inference_steps=steps)
        rows[f"repaint, as {wish}"] = sampler.sample(wish, seeds=range(seeds)).x
    file = out / "inpainting.png"
    contact_sheet(rows).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
