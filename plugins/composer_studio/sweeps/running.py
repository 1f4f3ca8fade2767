"""``composer sweep``: a plan into a folder, here or on Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from composer.recipes import Trust
from composer_studio.cli.errors import StoppedError
from composer_studio.sweeps.folder import SweepFolder, opened
from composer_studio.sweeps.plan import Job, Plan
from composer_studio.sweeps.worker import Worker

Engine = Callable[[Plan, Sequence[Job], SweepFolder, Trust], Iterator[tuple[Job, list[Path]]]]
"""Yields the finished jobs in any order, their files in the folder's staging."""


def sweep(
    plan: Plan, out: Path, batch: int, trust: Trust = (), engine: Engine | None = None
) -> int:
    """Make what is not there yet.

    Args:
        plan: all of it.
        out: the folder; it becomes an imagefolder.
        batch: images at a time, which is what a kill loses.
        trust: as ``Sampler.from_recipe`` has it.
        engine: None for this process.

    Returns:
        The images made now.

    Raises:
        ValueError, TypeError, LookupError: a recipe makes no sampler, or the folder is another's.
        RuntimeError: another sweep is writing into the folder.
        StoppedError: Ctrl-C.
    """
    with opened(out, plan) as folder:
        before = len(folder.done)
        jobs = plan.jobs(batch, folder.done)
        if not jobs:
            return 0
        run = engine or locally
        total = sum(len(job.seeds) for job in jobs)
        with tqdm(total=total, unit="image", disable=not sys.stderr.isatty()) as bar:
            try:
                for job, files in run(plan, jobs, folder, trust):
                    folder.commit(job, files)
                    bar.update(len(job.seeds))
            except KeyboardInterrupt:
                raise StoppedError(
                    f"{len(folder.done)} of {plan.images} images are whole in {out}. The same "
                    "command goes on."
                ) from None
        return len(folder.done) - before


def locally(
    plan: Plan, jobs: Sequence[Job], folder: SweepFolder, trust: Trust
) -> Iterator[tuple[Job, list[Path]]]:
    """One job after another in this process."""
    worker = Worker(plan.recipes, trust)
    for job in jobs:
        yield job, worker.save(job, folder.staging, plan.size)
