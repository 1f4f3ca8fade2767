"""Digits that read as one number upright and as another turned by half a turn."""

from pathlib import Path

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, Anagram, Climb, Particles, ReadsAs

PAIRS = [(6, 9), (4, 7), (0, 7), (2, 5)]


def main(out: Path, seeds: int = 8, steps: int = 8) -> Path:
    backend = composer.load_backend("mnist")
    rows = {}
    for upright, turned in PAIRS:
        views = {"identity": upright, "rotate_180": turned}
        # A classifier steers five candidates to both readings; the one that reads best stays.
        best = Particles(ReadsAs(views), survivors=((1, 5), (0, 1)))
        steer = Climb(ReadsAs(views, of="all", shift=0), steep=0.02)
        stack = [best, steer, Anagram(views), CFG(3.0, interval=(0.7, 1.0))]
        sampler = Sampler(backend, stack, num_inference_steps=steps)
        x = sampler.sample(seeds=range(seeds)).x
        rows[f"{upright} / {turned}"] = x
        rows[f"{upright} / {turned}, turned"] = x.flip(-2, -1)
    file = out / "anagrams.png"
    contact_sheet(rows).save(file)
    return file


if __name__ == "__main__":
    print(main(Path()))
