"""What was tried before something became a default; minutes a line, so not part of ``make bench``.

``python benchmarks/trials.py anagrams`` compares combinations of two views on the digits, and
``python benchmarks/trials.py scale-1`` the solvers at guidance scale 1.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

import composer
from composer.solvers import DDPM, DPMSolverPP, Euler, Solver
from composer_lab.evaluation.anagrams import PAIRS, anagrams, conditional_accuracy
from composer_plugins import (
    APG,
    CFG,
    Anagram,
    Climb,
    FeynmanKac,
    Langevin,
    Particles,
    ReadsAs,
    Spaced,
)
from composer_plugins.backends.mnist.judge import load_judge
from composer_plugins.backends.mnist.readers import load_judges

Views = Mapping[str, int]


class Trial(NamedTuple):
    """A stack for two views, of at most 80 rows a sample."""

    stack: Callable[[Views], list[object]]
    solver: Solver | None
    steps: int


def best_of(count: int, guidance: object, *others: object) -> Callable[[Views], list[object]]:
    """The best of ``count`` candidates of the plain mean, by the chooser."""
    survivors = ((1, count), (0, 1))
    return lambda views: [Particles(ReadsAs(views), survivors), *others, Anagram(views), guidance]


def half_way(views: Views) -> list[object]:
    return [Particles(ReadsAs(views), ((1, 4), (0.5, 1), (0, 1))), Anagram(views), CFG(5.0)]


def weighted(first: float, last: float) -> Callable[[Views], list[object]]:
    """The second view's weight goes from ``first``, in noise, to ``last``."""
    rows = [(1 - first, first), (1 - last, last)]
    return lambda views: [Anagram(views, "weighted", rows), CFG(5.0)]


def climbing(
    count: int, guidance: object, length: float = 1.0, climbs: int = 4, steep: float = 0.0
) -> Callable[[Views], list[object]]:
    """The best of ``count`` candidates, each steered by the chooser."""
    return lambda views: [
        Particles(ReadsAs(views), ((1, count), (0, 1))),
        Climb(ReadsAs(views, "all", 0), length, climbs, steep=steep),
        Anagram(views),
        guidance,
    ]


def steered(strength: float) -> Callable[[Views], list[object]]:
    return lambda views: [FeynmanKac(ReadsAs(views), strength, 4), Anagram(views), CFG(5.0)]


ANAGRAMS = {
    "plain mean, 20 steps": Trial(best_of(1, CFG(5.0)), None, 20),
    "noise renewed, 20 steps": Trial(best_of(1, CFG(5.0)), DDPM(), 20),
    "alternate, 40 steps": Trial(lambda views: [Anagram(views, "alternate"), CFG(5.0)], None, 40),
    "weight of the turned view .6 to .4, 20 steps": Trial(weighted(0.6, 0.4), None, 20),
    "weight of the turned view .4 to .6, 20 steps": Trial(weighted(0.4, 0.6), None, 20),
    "rectified by half, 20 steps": Trial(
        lambda views: [Anagram(views, rectification=0.5), CFG(5.0)], None, 20
    ),
    "10 steps, each with a Langevin walk": Trial(best_of(1, CFG(5.0), Langevin(1)), None, 10),
    "projected guidance, 20 steps": Trial(best_of(1, APG(CFG(5.0))), None, 20),
    "Feynman-Kac, 4 of strength 1, 5 steps": Trial(steered(1.0), DDPM(), 5),
    "Feynman-Kac, 4 of strength 5, 5 steps": Trial(steered(5.0), DDPM(), 5),
    "best of 2, 10 steps, noise renewed": Trial(best_of(2, CFG(5.0)), DDPM(), 10),
    "best of 3, 6 steps, noise renewed": Trial(best_of(3, CFG(5.0)), DDPM(), 6),
    "best of 4 at level .5, 8 steps": Trial(half_way, None, 8),
    "best of 4, 5 steps": Trial(best_of(4, CFG(5.0)), None, 5),
    "best of 4, 5 steps, scale 7": Trial(best_of(4, CFG(7.0)), None, 5),
    "best of 5, 5 steps, guided above .5": Trial(best_of(5, CFG(5.0, (0.5, 1.0))), None, 5),
    "best of 5, 4 steps, projected guidance": Trial(best_of(5, APG(CFG(5.0))), None, 4),
    **{
        f"steered, {name}, best of {count}, 4 steps": Trial(climbing(count, guidance), None, 4)
        for name, count, guidance in (
            ("guided", 1, CFG(3.0)),
            ("guided", 4, CFG(3.0)),
            ("guided above .7", 1, CFG(3.0, (0.7, 1.0))),
            ("guided above .7", 4, CFG(3.0, (0.7, 1.0))),
            ("guided above .9", 5, CFG(3.0, (0.9, 1.0))),
            ("not guided", 6, CFG(1.0)),
        )
    },
    **{
        f"steered, steep {steep:g}, guided above {low:g}, best of {count}, 4 steps": Trial(
            climbing(count, CFG(3.0, (low, 1.0)), steep=steep), None, 4
        )
        for steep, low, count in ((0.02, 0.7, 5), (0.03, 0.7, 5), (0.03, 0.9, 6))
    },
    "steered by .5 in 3, guided above .7, best of 5, 4 steps": Trial(
        climbing(5, CFG(3.0, (0.7, 1.0)), 0.5, 3), None, 4
    ),
    **{
        f"best of 5, 4 steps, scale {scale:g}": Trial(best_of(5, CFG(scale)), None, 4)
        for scale in (2.0, 3.0, 4.0, 5.0)
    },
    **{
        f"single candidate, 4 steps, scale {scale:g}": Trial(best_of(1, CFG(scale)), None, 4)
        for scale in (2.0, 3.0, 4.0, 5.0)
    },
}


def compare_anagrams(seeds: int, matching: str) -> None:
    print(f"Anagrams of the 45 unequal pairs under rotate_180, {seeds} seeds each")
    backend, judges = composer.load_backend("mnist"), load_judges()
    pairs = [pair for pair in PAIRS if pair[0] != pair[1]]
    for name, trial in ANAGRAMS.items():
        if matching not in name:
            continue
        shares, beside, rows = [], [], 0.0
        for one, other in pairs:
            views = {"identity": one, "rotate_180": other}
            found = anagrams(
                backend, judges, views, range(seeds), trial.stack(views), trial.solver, trial.steps
            )
            shares.append(float(found.correct.float().mean()))
            beside.append(float(found.specks.float().mean()))
            rows = found.rows
        read, specks = statistics.mean(shares), statistics.mean(beside)
        print(f"    {name:56} {read:.3f}   {specks:.2f} specks   {rows:g} rows", flush=True)


SOLVERS = (
    *(Euler(), DPMSolverPP(), DDPM(), Spaced(Euler())),
    *(Spaced(DDPM(), power) for power in (1.5, 2.0, 3.0)),
)


def compare_solvers(seeds: int, matching: str) -> None:
    print(f"Conditional accuracy at scale 1, {10 * seeds} samples")
    judge = load_judge()
    for name, steps in (("mnist", 10), ("mnist-ddpm", 20)):
        backend = composer.load_backend(name)
        for solver in (solver for solver in SOLVERS if matching in str(solver)):
            share = conditional_accuracy(backend, judge, 1.0, steps, range(seeds), solver)
            print(f"    {name:11} {steps} steps, {solver!s:36} {share:.4f}", flush=True)


TRIALS = {"anagrams": (compare_anagrams, 4), "scale-1": (compare_solvers, 120)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=[*TRIALS])
    parser.add_argument("--seeds", type=int, help="a pair, or a digit")
    parser.add_argument("--matching", default="", help="only lines whose name contains this")
    arguments = parser.parse_args()
    trial, usual = TRIALS[arguments.trial]
    trial(arguments.seeds or usual, arguments.matching)


if __name__ == "__main__":
    main()
