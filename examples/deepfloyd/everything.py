"""The whole of part A, the parts in the course's order."""

from pathlib import Path

import anagrams
import common
import denoising
import forward
import guidance
import hybrids
import inpainting
import logo
import sampling
import sdedit
from common import Course

PARTS = (
    *(sampling, forward, denoising, guidance, sdedit),
    *(inpainting, anagrams, hybrids, logo),
)


def run(course: Course) -> list[Path]:
    return [file for part in PARTS for file in part.run(course)]


if __name__ == "__main__":
    common.main(run, __doc__)
