"""Which head a character has, by pixels: ``python benchmarks/nearest_heads.py``.

Counts over all heads how often it is the one that was asked for.
"""

import argparse

import torch
from torch import Tensor

import composer
from composer import Sampler
from composer_plugins import CFG
from composer_plugins.backends.nouns import head_names, load_traits

NECK = 21
"""The first row of the body."""


def nearest_heads(x: Tensor) -> Tensor:
    """(B, 3, 32, 32) -> (B, 254), the indices of the heads from the nearest to the farthest.

    The distance is the mean square over all pixels above the body where no glasses can be, from
    the head on a plain background.
    """
    *_, heads, glasses = load_traits()
    seen = (glasses[:, 3] == 0).all(0)
    seen[NECK:] = False
    plain = torch.tensor([219.0, 215, 219])[:, None, None]
    pictures = torch.where(heads[:, 3:] == 255, heads[:, :3], plain) / 127.5 - 1
    gaps = x[:, None, :, seen] - pictures[None, :, :, seen]
    return gaps.square().mean((-1, -2)).argsort(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--every", type=int, default=1, help="of the heads, to be quicker")
    options = parser.parse_args()
    backend = composer.load_backend("nouns")
    asked = range(0, len(head_names()), options.every)
    for scale in options.scales:
        sampler = Sampler(backend, [CFG(scale)], num_inference_steps=options.steps)
        x = torch.cat([sampler.sample(head, seeds=[head]).x for head in asked])
        right = nearest_heads(x) == torch.tensor(asked)[:, None]
        best, five = (right[:, :n].any(1).float().mean() for n in (1, 5))
        print(
            f"{len(asked)} heads, scale {scale:g}, {options.steps} steps: the nearest of 254 is "
            f"the one asked for in {best:.3f}, it is among the nearest five in {five:.3f}"
        )


if __name__ == "__main__":
    main()
