"""One image, several prompts: by region, by band, beside a real digit, and by AND."""

from pathlib import Path

import torch

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import (
    CFG,
    Bands,
    Components,
    Conjunction,
    LaplacianPyramid,
    Masks,
    Reference,
)
from composer_plugins.backends.mnist import sample_digits


def main(out: Path, seeds: int = 8, steps: int = 20) -> Path:
    backend = composer.load_backend("mnist")
    images, labels = sample_digits()
    three = images[labels == 3][:1]
    top = torch.linspace(2, -1, 28).clamp(0, 1)[:, None].expand(28, 28)

    stacks = {
        "5 above, 8 below": [Components(Masks((top, 1 - top)), (5, 8)), CFG(4.0)],
        "coarse 0, finer 6, fine 8": [Components(LaplacianPyramid(2, 2.0), (0, 6, 8)), CFG(4.0)],
        "details of an 8 on this 3": [Reference(three, Bands((3.0,))), CFG(4.0)],
        "4 and 9": [Conjunction({4: 3.0, 9: 3.0})],
        "4 and not 9": [Conjunction({4: 4.0, 9: -1.5})],
    }
    rows = {}
    for name, stack in stacks.items():
        condition = 8 if "on this" in name else None
        sampler = Sampler(backend, stack, num_inference_steps=steps)
        rows[name] = sampler.sample(condition, range(seeds)).x
    rows["this 3"] = three
    file = out / "components.png"
    contact_sheet(rows).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
