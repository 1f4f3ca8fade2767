"""A.1.5 and A.1.6: pictures from noise alone, and classifier-free guidance.

i_start = 0 and noise for a picture: iterative denoising then makes one. Asked for "a high quality
photo" many are no thing in particular. Guidance asks the network twice, with the prompt and with
none (the empty prompt), and goes further in the direction in which the two differ:

    eps = eps_u + gamma (eps_c - eps_u)                                                 (A.4)

gamma = 0 ignores the prompt, 1 is the row above, 7 is beyond what the network said: pictures that
are clearer, and more alike.
"""

from pathlib import Path

import common
from common import NEUTRAL, Course
from torch import Tensor

from composer_plugins import CFG

SEEDS = (0, 1, 2, 3, 4, 5)
SCALES = (1.0, 7.0)


def sample(course: Course, scale: float) -> Tensor:
    return course.sampler(CFG(scale)).sample(NEUTRAL, SEEDS).x


def run(course: Course) -> list[Path]:
    course.encode([NEUTRAL])
    rows = {f"gamma = {scale:g}": sample(course, scale) for scale in SCALES}
    return [course.save("guidance", rows, [f"seed {seed}" for seed in SEEDS])]


if __name__ == "__main__":
    common.main(run, __doc__)
