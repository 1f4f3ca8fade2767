"""A.1.9: one thing from afar, another from nearby.

Our eyes lose high frequencies with distance. So let the low ones follow one prompt, and the high
ones another:

    eps = lowpass(eps_1) + highpass(eps_2),        highpass(e) = e - lowpass(e)        (A.9 to 11)

the low pass being a Gaussian of 33 taps with sigma = 2. Both estimates are of the same x_t, and
share the unconditional one: three rows of the network, not four.
"""

from pathlib import Path

import common
from common import Course
from torch import Tensor

from composer_plugins import CFG, GaussianBlur, Hybrid

PAIRS = {
    "skull": ("a lithograph of a skull", "a lithograph of waterfalls", 100),
    "canyon": ("Albert Einstein", "a photo of grand canyon", 8),
    "panda": ("a photo of a panda", "a lithograph of waterfalls", 36),
}
"""{name: (from afar, from nearby, seed)}"""
FROM_AFAR = GaussianBlur(3.0)


def sample(course: Course, words: Hybrid, seeds: range) -> Tensor:
    return course.sampler(words, CFG(7.0)).sample(seeds=seeds).x


def run(course: Course) -> list[Path]:
    course.encode([prompt for low, high, _ in PAIRS.values() for prompt in (low, high)])
    files = []
    for name, (low, high, seed) in PAIRS.items():
        seeds, words = range(seed, seed + 4), Hybrid(low, high, sigma=2.0)
        x = sample(course, words, seeds)
        # Stage II adds details only, which are those of the prompt seen from nearby.
        for suffix, images in course.enlarged(x, seeds, high).items():
            rows = {f"nearby: {high}": images, f"afar: {low}": FROM_AFAR(images)}
            columns = [f"seed {s}" for s in seeds]
            files.append(course.save(f"hybrid-{name}{suffix}", rows, columns))
    return files


if __name__ == "__main__":
    common.main(run, __doc__)
