"""A.1.8 and its bells and whistles: one picture, two things, by how it is looked at.

Denoise the picture for one prompt and a view V of it (turned, skewed, inverted) for another, take
the second estimate back through the view, and follow the mean of both:

    eps_1 = CFG(UNet(x_t, t, p_1))                                                      (A.6)
    eps_2 = V^-1 CFG(UNet(V x_t, t, p_2))                                               (A.7)
    eps = (eps_1 + eps_2) / 2                                                           (A.8)

The network must see noise as it was trained on, so V must be orthogonal: pixels may change places
or signs, but not be blurred. Hence a skew that rolls whole columns, by up to 50 pixels, and a
negative, x -> -x, around gray = 0.
"""

from collections.abc import Mapping
from pathlib import Path

import common
from common import SUFFIXES, Course

from composer import Transform, get_transform
from composer_plugins import Anagram
from composer_plugins.transforms import Skew

CAMPFIRE = "an oil painting of people around a campfire"
OLD_MAN = "an oil painting of an old man"
FLOWERS, DRESS = "a watercolor painting of flower arrangements", "a photo of a dress"
ILLUSIONS: dict[str, tuple[Mapping[str | Transform, str], int]] = {
    "flip": ({"identity": OLD_MAN, "flip": CAMPFIRE}, 100),
    "turn": ({"identity": CAMPFIRE, "rotate_180": "a photo of a volcano"}, 28),
    "turn-2": ({"identity": FLOWERS, "rotate_180": DRESS}, 2),
    "skew": ({"identity": "a lithograph of waterfalls", Skew(50): "a lithograph of a skull"}, 82),
    "negative": ({"identity": OLD_MAN, "negative": CAMPFIRE}, 68),
}
"""{name: ({view: prompt}, seed)}"""


def run(course: Course) -> list[Path]:
    course.encode([prompt for views, _ in ILLUSIONS.values() for prompt in views.values()])
    files = []
    for name, (views, seed) in ILLUSIONS.items():
        seeds = range(seed, seed + 4)
        results = course.cascade(Anagram(views)).sample(seeds=seeds)
        for suffix, result in zip(SUFFIXES, results, strict=False):
            rows = {prompt: get_transform(view)(result.x) for view, prompt in views.items()}
            columns = [f"seed {s}" for s in seeds]
            files.append(course.save(f"anagram-{name}{suffix}", rows, columns))
    return files


if __name__ == "__main__":
    common.main(run, __doc__)
