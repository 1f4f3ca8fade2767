"""A.1.9: one thing from afar, another from nearby.

Our eyes lose high frequencies with distance. So let the low ones follow one prompt, and the high
ones another:

    eps = lowpass(eps_1) + highpass(eps_2),        highpass(e) = e - lowpass(e)        (A.9 to 11)

the low pass being a Gaussian of 33 taps with sigma = 2. Both estimates are of the same x_t, and
share the unconditional one: three rows of the network, not four.
"""

from pathlib import Path

import common
from common import SUFFIXES, Course

from composer_plugins import GaussianBlur, Hybrid

PAIRS = {
    "skull": ("a lithograph of a skull", "a lithograph of waterfalls", 100),
    "canyon": ("Albert Einstein", "a photo of grand canyon", 8),
    "panda": ("a photo of a panda", "a lithograph of waterfalls", 36),
}
"""{name: (from afar, from nearby, seed)}"""
FROM_AFAR = GaussianBlur(3.0)


def run(course: Course) -> list[Path]:
    course.encode([prompt for low, high, _ in PAIRS.values() for prompt in (low, high)])
    files = []
    for name, (low, high, seed) in PAIRS.items():
        seeds, words = range(seed, seed + 4), Hybrid(low, high, sigma=2.0)
        # Stage II adds details only, which are those of the prompt seen from nearby.
        results = course.cascade(words, plain=True).sample(seeds=seeds)
        for suffix, result in zip(SUFFIXES, results, strict=False):
            rows = {f"nearby: {high}": result.x, f"afar: {low}": FROM_AFAR(result.x)}
            columns = [f"seed {s}" for s in seeds]
            files.append(course.save(f"hybrid-{name}{suffix}", rows, columns))
    return files


if __name__ == "__main__":
    common.main(run, __doc__)
