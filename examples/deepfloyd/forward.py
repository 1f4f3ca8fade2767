"""A.1.1 and A.1.2: noise a picture, and try to take the noise away by a blur.

The forward process mixes a clean image x_0 with noise eps ~ N(0, I):

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps                                       (A.2)

abar_t ("alphas_cumprod") falls from 1 at t = 0 to 0 at t = 999, so x_t goes from the picture to
noise alone, its variance staying what it is. A Gaussian blur is the best that a filter can do
about noise without knowing what pictures look like: it takes the noise and the details with it.
"""

from pathlib import Path

import common
import torch
from common import Course
from torch import Tensor

from composer_plugins import GaussianBlur

TIMES = (250, 500, 750)
SEED = 100
BLUR = GaussianBlur(2.0)  # sigma in pixels of 64


def noised(course: Course) -> Tensor:
    """The photo at TIMES, (3, 3, H, W), by one and the same noise."""
    add_noise = course.backend.schedule.add_noise
    return torch.cat([add_noise(course.photo, course.noise(SEED), t) for t in TIMES])


def run(course: Course) -> list[Path]:
    x = torch.cat([course.photo, noised(course)])
    rows = {"noised": x, "blurred, sigma 2": BLUR(x)}
    return [course.save("forward", rows, [f"t = {t}" for t in (0, *TIMES)])]


if __name__ == "__main__":
    common.main(run, __doc__)
