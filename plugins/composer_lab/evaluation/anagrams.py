"""Quality of samples, measured by judges that neither steer nor choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor

from composer import Sampler
from composer.protocols import Backend
from composer.solvers import Solver
from composer_lab.evaluation.specks import specks
from composer_plugins.backends.mnist.judge import Judge
from composer_plugins.guidance.cfg import CFG
from composer_plugins.illusions.anagram import Anagram
from composer_plugins.illusions.latent_anagram import LatentAnagram
from composer_plugins.steering.climb import Climb
from composer_plugins.steering.particles import Particles
from composer_plugins.steering.readings import (
    Classifier,
    alignment,
    concealment,
    views_correct,
)
from composer_plugins.steering.reads_as import ReadsAs

MAX_ROWS = 256
PAIRS = tuple(combinations_with_replacement(range(10), 2))
"""The 55 unordered pairs of digits."""


def conditional_accuracy(
    backend: Backend,
    judge: Judge,
    scale: float,
    num_inference_steps: int,
    seeds: Sequence[int],
    solver: Solver | None = None,
) -> float:
    """Share of samples that the judge reads as their conditioning digit; ten digits per seed."""
    sampler = Sampler(backend, [CFG(scale)], solver, num_inference_steps, MAX_ROWS)
    right = sum(
        int((judge.classify(sampler.sample(digit, seeds).x) == digit).sum()) for digit in range(10)
    )
    return right / (10 * len(seeds))


class Anagrams(NamedTuple):
    """Anagrams of one pair of digits, with measures by J judges.

    Attributes:
        views: {transform: digit}.
        x: (B, 1, 28, 28), one per seed.
        correct: (J, B) bool, read as intended in every view.
        aligned, concealed: (B,) in [0, 1], means over the judges; see
            :mod:`composer_plugins.steering.readings`.
        specks: (B,) see :mod:`composer_lab.evaluation.specks`.
        chosen: (B,) the score of the chooser, higher is better.
        rows: network rows per image.
        cost: rows per image, with the time outside the model counted as rows of it.
    """

    views: Mapping[str, int]
    x: Tensor
    correct: Tensor
    aligned: Tensor
    concealed: Tensor
    specks: Tensor
    chosen: Tensor
    rows: float
    cost: float

    def best_of(self, count: int) -> float:
        """Share read as intended, of the image per ``count`` seeds that the chooser ranks best."""
        right = self._groups(count)
        best = self.chosen[: right.shape[1] * count].reshape(-1, count).argmax(1)
        chosen = right.gather(2, best.expand(len(right), -1)[..., None])
        return float(chosen.float().mean())

    def any_of(self, count: int) -> float:
        """Share of groups of ``count`` seeds of which at least one is read as intended."""
        return float(self._groups(count).any(2).float().mean())

    def _groups(self, count: int) -> Tensor:
        """``correct`` as (J, groups, count)."""
        groups = self.x.shape[0] // count
        return self.correct[:, : groups * count].reshape(-1, groups, count)


ANAGRAM_STEPS = 4
"""Several candidates in few steps read better than one candidate at the same number of rows."""


EARLY = (0.7, 1.0)
"""Noise levels at which digits of anagrams are guided: in noise, where a digit is decided."""
STEEP = 0.02
"""The chooser's gradient where one reading fails; an image that reads well is moved less."""


def anagram_stack(
    views: Mapping[str, int], candidates: int = 5, scale: float = 3.0
) -> list[object]:
    """The plugins that make the best anagrams at the cost of 80 rows per sample and ANAGRAM_STEPS
    steps: each candidate steered by the chooser, and the best of ``candidates`` by it. See
    docs/benchmarks.md."""
    best = Particles(ReadsAs(views), ((1.0, candidates), (0.0, 1)))
    steer = Climb(ReadsAs(views, "all", 0), steep=STEEP)
    return [best, steer, Anagram(views), CFG(scale, EARLY)]


def chosen_stack(views: Mapping[str, int]) -> list[object]:
    """The best of five by the chooser, none steered."""
    return [Particles(ReadsAs(views), ((1.0, 5), (0.0, 1))), Anagram(views), CFG(3.0)]


class Method(NamedTuple):
    """A way to sample anagrams: the plugins for {transform: digit}, and the number of steps."""

    plugins: Callable[[Mapping[str, int]], Iterable[object]]
    steps: int


METHODS = {
    "best": Method(anagram_stack, ANAGRAM_STEPS),
    "chosen": Method(chosen_stack, ANAGRAM_STEPS),
    "plain": Method(lambda views: [Anagram(views), CFG(3.0)], 20),
    "latent": Method(lambda views: [LatentAnagram(views), CFG(3.0)], 20),
    "latent pyramid": Method(lambda views: [LatentAnagram(views, "pyramid"), CFG(3.0)], 20),
}
"""{name: method}, each of at most 80 rows per sample for two views."""


def anagram_sampler(
    backend: Backend,
    views: Mapping[str, int],
    stack: Iterable[object] | None = None,
    solver: Solver | None = None,
    num_inference_steps: int = ANAGRAM_STEPS,
) -> Sampler:
    """The sampler of :func:`anagrams`."""
    plugins = anagram_stack(views) if stack is None else stack
    return Sampler(backend, plugins, solver, num_inference_steps, MAX_ROWS)


def anagrams(
    backend: Backend,
    judges: Mapping[str, Classifier],
    views: Mapping[str, int],
    seeds: Sequence[int],
    stack: Iterable[object] | None = None,
    solver: Solver | None = None,
    num_inference_steps: int = ANAGRAM_STEPS,
) -> Anagrams:
    """Sample anagrams of one {transform: digit}, and judge them.

    Args:
        judges: {name: classifier}, none of which is the chooser.
        stack: the plugins; None for :func:`anagram_stack`.
    """
    sampler = anagram_sampler(backend, views, stack, solver, num_inference_steps)
    result = sampler.sample(seeds=seeds)
    x, rows, panel = result.x.clamp(-1, 1), result.stats.rows / len(seeds), judges.values()
    return Anagrams(
        views,
        x,
        torch.stack([views_correct(judge, x, views) for judge in panel]),
        torch.stack([alignment(judge, x, views) for judge in panel]).mean(0),
        torch.stack([concealment(judge, x, views) for judge in panel]).mean(0),
        specks(x),
        ReadsAs(views)(x),
        rows,
        rows * result.stats.seconds / result.stats.model_seconds,
    )


def standard_error(shares: Sequence[float], count: int) -> float | None:
    """Of the mean of shares, each of ``count`` independent samples; None for one sample each.

    The pairs are fixed, so each share p adds the unbiased p (1 - p) / (count - 1) to the variance
    of their sum.
    """
    if count < 2:
        return None
    return math.sqrt(sum(p * (1 - p) for p in shares) / (count - 1)) / len(shares)
