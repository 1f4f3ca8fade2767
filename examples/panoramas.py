"""Rows of digits, each one image: a canvas six times as wide as the model's images."""

from pathlib import Path

from torch import Tensor

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, Anagram, Canvas, Regions

SIDE, STRIDE = 28, 21  # of the model's images, and from one digit to the next
PI = (3, 1, 4, 1, 5, 9, 2, 6)


def main(out: Path, seeds: int = 3, steps: int = 15) -> Path:
    backend = composer.load_backend("mnist")
    size = SIDE, SIDE + (len(PI) - 1) * STRIDE
    apart = Canvas(backend, size, overlap=0.25)  # a crop for each digit
    close = Canvas(backend, size, overlap=0.5)  # and one between any two
    around = Canvas(backend, size, overlap=0.25, wrap="horizontal")
    upright, turned = Regions((6, 4, 0, 2) * 2), Regions((5, 7, 7, 9) * 2)

    def sampled(canvas: Canvas, plugin: object) -> Tensor:
        sampler = Sampler(canvas, [plugin, CFG(3.0)], num_inference_steps=steps)
        return sampler.sample(seeds=range(seeds)).x

    both = sampled(apart, Anagram({"identity": upright, "rotate_180": turned}))
    ring = sampled(around, Regions(range(1, 10)))
    rows = {
        "pi": sampled(apart, Regions(PI)),
        "pi, flowing": sampled(close, Regions(PI)),
        "64026402": both,
        "57795779, turned": both.flip(-2, -1),
        "1 to 9, around": ring,
        "rolled by half": ring.roll(size[1] // 2, -1),
    }
    file = out / "panoramas.png"
    contact_sheet(rows, scale=2).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
