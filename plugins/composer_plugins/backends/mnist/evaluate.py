"""Quality of samples as an independent judge sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from composer import Sampler, get_transform
from composer.backends import Backend
from composer.solvers import Solver
from composer_plugins.anagram import Anagram
from composer_plugins.backends.mnist.judge import Judge
from composer_plugins.cfg import CFG

MAX_ROWS = 256


def conditional_accuracy(
    backend: Backend,
    judge: Judge,
    scale: float,
    num_inference_steps: int,
    seeds: Sequence[int],
    solver: Solver | None = None,
) -> float:
    """Share of samples that the judge reads as the digit asked for, ten digits a seed."""
    sampler = Sampler(backend, [CFG(scale)], solver, num_inference_steps, MAX_ROWS)
    right = sum(
        int((judge.classify(sampler.sample(digit, seeds).x) == digit).sum()) for digit in range(10)
    )
    return right / (10 * len(seeds))


def all_views_correct(
    backend: Backend,
    judge: Judge,
    views: dict[str, int],
    seeds: Sequence[int],
    scale: float = 5.0,
    num_inference_steps: int = 20,
    further: Iterable[object] = (),
) -> float:
    """Share of anagrams whose every view the judge reads as intended.

    Args:
        views: {transform name: digit}.
        further: plugins to stack around the anagram.
    """
    stack = [*further, Anagram(views), CFG(scale)]
    sampler = Sampler(backend, stack, None, num_inference_steps, MAX_ROWS)
    x = sampler.sample(seeds=seeds).x
    correct = [judge.classify(get_transform(name)(x)) == digit for name, digit in views.items()]
    together = correct[0]
    for view in correct[1:]:
        together = together & view
    return float(together.float().mean())
