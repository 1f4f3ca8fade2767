"""Characters side by side in one image: a canvas of the colour model, a head for each region."""

from pathlib import Path

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, Canvas, Regions

HEADS = ("robot", "panda", "watermelon", "mushroom")
SIZE = 32, 96


def main(out: Path, seeds: int = 3, steps: int = 12) -> Path:
    backend, rows = composer.load_backend("nouns"), {}
    canvases = {
        "side by side": Canvas(backend, SIZE, overlap=0.25),  # a crop for each character
        "closer": Canvas(backend, SIZE, overlap=0.5),
        "around": Canvas(backend, SIZE, overlap=0.25, wrap="horizontal"),
    }
    for name, canvas in canvases.items():
        sampler = Sampler(canvas, [Regions(HEADS), CFG(3.0)], num_inference_steps=steps)
        rows[name] = sampler.sample(seeds=range(seeds)).x
    rows["rolled by half"] = rows["around"].roll(SIZE[1] // 2, -1)
    file = out / "crowd.png"
    contact_sheet(rows).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
