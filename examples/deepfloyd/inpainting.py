"""A.1.7.2: make a part of a picture anew.

After every step, what is to be kept is put back, noised to the level of the moment:

    x_t <- m x_t + (1 - m) forward(x_orig, t),        m = 1 where something new is wanted (A.5)

so the network always sees the rest of the picture around the hole, and fills it to fit.
"""

from pathlib import Path

import common
import torch
from common import NEUTRAL, Course
from torch import Tensor

from composer_plugins import CFG, Inpaint

SEEDS = (38, 14, 17)


def hole(course: Course) -> Tensor:
    """The mask (H, W): 1 over the top of the tower."""
    _, height, width = course.backend.shape
    mask = torch.zeros(height, width)
    mask[height // 8 : height // 2, width // 3 : 2 * width // 3] = 1
    return mask


def inpaint(course: Course) -> Tensor:
    stack = (Inpaint(course.photo, hole(course), mode="renoise"), CFG(7.0))
    return course.sampler(*stack).sample(NEUTRAL, SEEDS).x


def run(course: Course) -> list[Path]:
    course.encode([NEUTRAL])
    mask = hole(course).to(course.photo)
    shown = [course.photo, (2 * mask - 1).expand_as(course.photo), mask * course.photo]
    rows = {NEUTRAL: torch.cat([*shown, inpaint(course)])}
    columns = ["photo", "mask", "to replace", *(f"seed {seed}" for seed in SEEDS)]
    return [course.save("inpainting", rows, columns)]


if __name__ == "__main__":
    common.main(run, __doc__)
