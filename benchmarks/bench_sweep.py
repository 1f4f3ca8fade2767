"""What a sweep costs over ``composer sample``, and what a second worker brings.

``python benchmarks/bench_sweep.py --images 512`` samples the anagram of examples/recipes with
20 steps. Overhead compares processor time of this process, one after the other, `--rounds` times,
and prints the median. Workers are Ray's on this machine, a process of one thread each; their rate
is that of all batches after each has finished its first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from composer_studio.sampling import sample_to_files
from composer_studio.sweeps.on_ray import RayEngine
from composer_studio.sweeps.plan import plan_of
from composer_studio.sweeps.running import sweep
from composer_studio.written import read_file

RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "anagram.toml"
BATCH = 16


def processor_seconds(run: Callable[[], object]) -> float:
    """Of this process alone, whatever else the machine does."""
    began = time.process_time()
    run()
    return time.process_time() - began


def overhead(images: int, rounds: int) -> float:
    """Processor time of a sweep over that of ``sample``: the same images in the same batches."""
    changes = {"seeds": f"0:{images}", "output": {"size": 28}}
    ratios = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            script, plan = read_file(RECIPE, changes), plan_of(RECIPE, changes, [])
            one = processor_seconds(lambda: sample_to_files(script, Path(folder) / "a"))  # noqa: B023
            other = processor_seconds(lambda: sweep(plan, Path(folder) / "b", BATCH))  # noqa: B023
            ratios.append(other / one)
    return statistics.median(ratios[1:])  # the first warms up


def images_an_hour(images: int, workers: int) -> float:
    """The rate of so many workers, once all of them run."""
    plan = plan_of(RECIPE, {"seeds": f"0:{images}", "output": {"size": 28}}, [])
    engine, finished = RayEngine(workers=workers), []

    def timed(*arguments: Any) -> Any:
        for job, files in engine(*arguments):
            finished.append((time.perf_counter(), len(job.seeds)))
            yield job, files

    with tempfile.TemporaryDirectory() as folder:
        sweep(plan, Path(folder) / "out", BATCH, engine=timed)
    began = 2 * workers
    made = sum(count for _, count in finished[began:])
    return 3600 * made / (finished[-1][0] - finished[began - 1][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.images < (least := 8 * BATCH):
        parser.error(f"--images must be at least {least}, for the rate of two workers.")
    torch.set_num_threads(1)
    print(f"sweep over sample, processor time: {overhead(arguments.images, arguments.rounds):.3f}")
    rates = {workers: images_an_hour(arguments.images, workers) for workers in (1, 2)}
    for workers, rate in rates.items():
        print(f"{workers} worker(s): {rate:,.0f} images an hour")
    print(f"two workers over one: {rates[2] / rates[1]:.2f} (2 is the most)")


if __name__ == "__main__":
    main()
