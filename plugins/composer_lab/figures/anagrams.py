"""Digits that read as one number upright and as another through a view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from composer import Result, get_transform
from composer_lab.evaluation.anagrams import anagram_stack
from composer_lab.figures.films import Turning
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet

MODEL = "mnist"


class View(NamedTuple):
    """A view, a description of it, pairs of digits to sample, and a caption."""

    transform: str
    words: str
    pairs: Sequence[tuple[int, int]]
    caption: str


ROTATION = View(
    "rotate_180",
    "turned",
    ((6, 9), (4, 7), (0, 7), (2, 5)),
    "The lower row is the upper one after half a turn; turn the page.",
)
FLIP = View(
    "flip",
    "upside down",
    ((2, 5), (4, 9), (3, 8), (6, 9)),
    "The lower row is the upper one upside down, as in a lake.",
)
SKEW = View(
    "skew",
    "skewed",
    ((6, 8), (8, 9), (0, 9), (4, 7)),
    "In the lower row each column has rolled down by its own number of pixels, from -22 at the "
    "left to 22 at the right, wrapping around. This permutes pixels; a true skew would "
    "interpolate and shorten the noise.",
)
NEGATIVE = View(
    "negative",
    "negative",
    ((0, 1), (0, 4), (0, 9), (4, 5)),
    "The lower row is the upper one with black and white exchanged. Both readings need MNIST's "
    "black background, so it becomes grey. A 0 whose hole is the other digit reads best. The "
    "judge was not trained on grey backgrounds and reads almost none of them.",
)


def anagram(lab: Lab, transform: str, pair: Sequence[int], seeds: Iterable[int]) -> Result:
    """For each seed the best of several candidates, as the chooser ranks them."""
    views = dict(zip(("identity", transform), pair, strict=True))
    stack = anagram_stack(views, lab.effort.candidates)
    return lab.sampler(MODEL, stack, lab.effort.anagram_steps).sample(seeds=seeds)


def sheet(lab: Lab, view: View) -> Sheet:
    """Pairs of digits, one upright, the other through the view: each image is shown both ways."""
    seen, groups = get_transform(view.transform), []
    for upright, other in view.pairs:
        x = anagram(lab, view.transform, (upright, other), lab.seeds()).x
        groups.append([Row(f"{upright}", x), Row(f"{view.words}: {other}", seen(x))])
    return Sheet(
        f"Anagrams: one image, two digits, {view.words}",
        groups,
        [f"seed {seed}" for seed in lab.seeds()],
        f"{view.caption} {lab.effort.anagram_steps} steps, the best of {lab.effort.candidates} "
        "candidates per seed.",
    )


def film(lab: Lab, view: View) -> Turning:
    """The first pair of the sheet, moving from one reading to the other and back."""
    pair = view.pairs[0]
    result = anagram(lab, view.transform, pair, lab.seeds(max(1, lab.effort.columns // 2)))
    return Turning(result, [f"read as {digit}" for digit in pair])
