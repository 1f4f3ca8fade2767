"""Milliseconds of processor time to build a Sampler: the first time in a process, and again.

No model is run, so the times are those of checks and probes alone. ``make bench`` prints them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from composer import Batch, Output, Sampler
from composer.predictions import EPSILON, Prediction
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM, Solver
from composer_plugins import CFG, Anagram, Bands, Cascade, Components, Hybrid, Inpaint, Stage

SIZES = (28, 64, 256, 512, 1024)
AGAIN = 5


@dataclass(frozen=True, eq=False)
class NullBackend:
    """Colour images of one size, and a network that costs nothing."""

    size: int
    schedule: DiscreteSchedule = DiscreteSchedule.linear()
    low_res_schedule: DiscreteSchedule = DiscreteSchedule.linear()
    prediction: Prediction = EPSILON
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    default_solver: Solver = DDIM()

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def encode(self, condition: Any) -> Hashable:
        return condition  # type: ignore[no-any-return]

    def evaluate(self, batch: Batch) -> Output:
        return Output(batch.x)


@cache
def halves(size: int) -> Inpaint:
    """One for all builds: to make its images is not a part of them."""
    mask = torch.zeros(size, size)
    mask[:, size // 2 :] = 1
    return Inpaint(torch.zeros(3, size, size), mask)


def cascade(size: int, *plugins: object) -> Cascade:
    """Of a quarter of the size, and the size."""
    stages = [Stage(NullBackend(size // 4)), Stage(NullBackend(size))]
    return Cascade(stages, [Anagram({"identity": 1, "rotate_180": 2}), *plugins, CFG(3.0)])


def sampler(plugin: Callable[[int], object]) -> Callable[[int], object]:
    return lambda size: Sampler(NullBackend(size), [plugin(size), CFG(3.0)])


STACKS: dict[str, Callable[[int], object]] = {
    "CFG": lambda size: Sampler(NullBackend(size), [CFG(3.0)]),
    "Anagram of a jigsaw + CFG": sampler(lambda size: Anagram({"identity": 1, "jigsaw": 2})),
    "Components(Bands()) + CFG": sampler(lambda size: Components(Bands(), (1, 2))),
    "Hybrid + CFG": sampler(lambda size: Hybrid(1, 2)),
    "Inpaint + CFG": sampler(halves),
    "Cascade of n/4 and n": cascade,
    "the same, with Inpaint": lambda size: cascade(size, halves(size)),
}


def milliseconds(job: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    job()
    return 1000 * (time.process_time() - began)


def build_times(sizes: Sequence[int] = SIZES) -> None:
    """Print a table: a row a stack, a column a size, first and again."""
    print("Milliseconds to build a stack: the first time, and the median of later ones")
    print(f"    {'':26}" + "".join(f"{size:>18}" for size in sizes))
    Sampler(NullBackend(8), [CFG(3.0)])  # what is imported at the first one
    for name, build in STACKS.items():
        cells = []
        for size in sizes:
            first = milliseconds(lambda build=build, size=size: build(size))
            again = sorted(
                milliseconds(lambda build=build, size=size: build(size)) for _ in range(AGAIN)
            )
            cells.append(f"{first:9.1f}, {again[AGAIN // 2]:.1f}".rjust(18))
        print(f"    {name:26}" + "".join(cells), flush=True)


if __name__ == "__main__":
    build_times()
