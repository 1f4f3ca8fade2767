"""SDEdit over i_start: from a free digit (0) to the given one (19 of 20), asked to be an 8."""

from pathlib import Path

import torch

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, SDEdit
from composer_plugins.backends.mnist import sample_digits

STARTS = (0, 2, 4, 6, 8, 10, 12, 14, 16, 18)


def main(out: Path, seeds: int = 4, steps: int = 20) -> Path:
    backend = composer.load_backend("mnist")
    images, labels = sample_digits()
    starts = [start * steps // 20 for start in STARTS]
    rows = {}
    for digit in range(seeds):
        image = images[labels == digit][0]
        strip = []
        for start in starts:
            stack = [SDEdit(image, i_start=start), CFG(3.0)]
            strip.append(Sampler(backend, stack, num_inference_steps=steps).sample(8).x)
        rows[f"{digit} as 8"] = torch.cat([*strip, image[None]])
    file = out / "sdedit.png"
    headings = ",".join([*map(str, starts), "input"])
    contact_sheet(rows, columns=headings).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
