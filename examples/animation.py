"""A 6/9 anagram that turns by itself, and every view of one digit on its way there."""

from pathlib import Path

import torch

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer_plugins import CFG, Anagram
from composer_plugins.backends.mnist import sample_digits

VIEWS = (
    *("flip", "rotate_180", "rotate_cw", "rotate_ccw", "skew", "shear", "roll", "negative"),
    *("detail_negative", "inner_circle", "square_hinge", "jigsaw", "patch_permute"),
    *("pixel_permute", "channel_permutation", "colour_rotation"),
)
ON_THE_WAY = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)


def turning_anagram(file: Path, seeds: int, steps: int) -> None:
    stack = [Anagram({"identity": 6, "rotate_180": 9}), CFG(5.0)]
    sampler = Sampler(composer.load_backend("mnist"), stack, num_inference_steps=steps)
    sampler.sample(seeds=range(seeds)).animate(file, captions=("six", "nine"))


def all_views(file: Path) -> None:
    images, labels = sample_digits()
    orange = torch.tensor([1.0, 0.7, 0.3])[:, None, None]
    four = (images[labels == 4][0] + 1) * orange - 1  # in colours, some views being of colours
    rows = {}
    for name in VIEWS:
        view = composer.get_transform(name)
        rows[name] = torch.stack([view.frame(four, share) for share in ON_THE_WAY])
    contact_sheet(rows, columns=",".join(map(str, ON_THE_WAY))).save(file)


def main(out: Path, seeds: int = 4, steps: int = 20) -> Path:
    turning_anagram(out / "turning.gif", seeds, steps)
    all_views(out / "views.png")
    return out / "views.png"


if __name__ == "__main__":
    print(main(Path()))
