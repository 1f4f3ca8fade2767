"""Bells and whistles: a logo from a sketch.

SDEdit once more (see sdedit.py), with a prompt, and so late (i_start 25 of 34) that the sketch is
cleaned up and not replaced.
"""

from pathlib import Path

import common
import pictures
import torch
from common import Course
from torch import Tensor

from composer.images import read_picture
from composer_plugins import CFG, SDEdit

PROMPT = (
    "A clean, minimalistic course logo of the computer vision course of the University of "
    "California at Berkeley. A cute cartoon bear peeks from behind a square sign. Inside the "
    "square is a simple 3x3 convolution kernel diagram. Smooth bold outlines, flat look, friendly "
    "style"
)
I_START, SCALE, SEEDS = 25, 7.0, (9, 10, 11, 12)


def sketch(course: Course) -> Tensor:
    """The first picture given, or a bear behind a kernel."""
    if course.given:
        return course.photo
    return read_picture(pictures.bear(), course.backend.shape).to(course.backend.device)


def run(course: Course) -> list[Path]:
    course.encode([PROMPT])
    image = sketch(course)
    start = course.i_start(I_START)
    sampler = course.sampler(SDEdit(image, i_start=start), CFG(SCALE))
    rows = {f"i_start {start}": torch.cat([image, sampler.sample(PROMPT, SEEDS).x])}
    return [course.save("logo", rows, ["sketch", *(f"seed {seed}" for seed in SEEDS)])]


if __name__ == "__main__":
    common.main(run, __doc__)
