"""A.1.7, A.1.7.1 and A.1.7.3: edit a picture by noising and denoising it.

Noise takes details first and the composition last. SDEdit noises a picture to the time of i_start,
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, and denoises from there: what the noise covered is
made anew, as a natural picture, so a crude drawing may end as a photograph. i_start = 1 keeps next
to nothing, 20 nearly all. A prompt says what to make of it.
"""

from pathlib import Path

import common
import torch
from common import NEUTRAL, Course
from torch import Tensor

from composer_plugins import CFG, SDEdit

STARTS = (1, 3, 5, 7, 10, 20)
SEED = 100
PROMPTS = ("a rocket ship", "a stormtrooper from Star Wars", "Albert Einstein")


def starts(course: Course) -> list[int]:
    """STARTS in the times visited; where those are few, some fall together."""
    return sorted({course.i_start(start) for start in STARTS})


def edit(course: Course, images: Tensor, prompt: str) -> list[Tensor]:
    """Images (B, 3, H, W) edited from each of the starts, one call for all of them."""
    stacks = [(SDEdit(images, i_start=start), CFG(7.0)) for start in starts(course)]
    seeds = [SEED] * len(images)  # the same noise for each
    return [course.sampler(*stack).sample(prompt, seeds).x for stack in stacks]


def run(course: Course) -> list[Path]:
    course.encode([NEUTRAL, *PROMPTS])
    columns = [*(f"i_start {start}" for start in starts(course)), "original"]
    images = torch.cat([*course.images.values()])
    strips = torch.stack([*edit(course, images, NEUTRAL), images], 1)
    rows = dict(zip(course.images, strips, strict=True))
    files = [course.save("sdedit", rows, columns)]

    rows = {p: torch.cat([*edit(course, course.photo, p), course.photo]) for p in PROMPTS}
    return [*files, course.save("sdedit-prompts", rows, columns)]


if __name__ == "__main__":
    common.main(run, __doc__)
