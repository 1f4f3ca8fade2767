"""The folder of a sweep: what is in metadata.jsonl is whole, and all else is made again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from composer.writing import remove_left_over, require_folder, write_atomically
from composer_studio.folders import LOCK, METADATA, locked, made, read_rows, write_rows
from composer_studio.sweeps.plan import Job, Plan

PLAN = ".sweep.json"
STAGING = ".unfinished"


class SweepFolder:
    """Takes finished batches; use :func:`opened`."""

    def __init__(self, path: Path, plan: Plan, done: set[str]) -> None:
        self.path, self._plan, self.done = path, plan, done

    @property
    def staging(self) -> Path:
        """Where files wait until all of their batch are there; on the same disk."""
        return self.path / STAGING

    def commit(self, job: Job, files: Sequence[Path]) -> None:
        """Move the files of a batch in place, in the order of its seeds, then note them: a kill
        between leaves files that nobody noted, and the batch is made again."""
        rows = [self._plan.row_of(job.variant, seed) for seed in job.seeds]
        for file, row in zip(files, rows, strict=True):
            file.replace(self.path / row["file_name"])
        with (self.path / METADATA).open("a") as metadata:
            metadata.write("".join(f"{json.dumps(row)}\n" for row in rows))
            metadata.flush()
            os.fsync(metadata.fileno())
        self.done |= {row["file_name"] for row in rows}


@contextmanager
def opened(path: Path, plan: Plan) -> Iterator[SweepFolder]:
    """The folder of a sweep, made or taken up again, and held.

    Raises:
        RuntimeError: another sweep is writing into it.
        ValueError: it holds another sweep, or files that no sweep made.
    """
    require_folder(path)
    with made(path), locked(path):
        _require_same(path, plan)
        remove_left_over(path)
        shutil.rmtree(path / STAGING, ignore_errors=True)
        rows = [row for row in read_rows(path) if (path / row["file_name"]).is_file()]
        write_rows(path, rows)  # without a line that a kill cut short
        (path / STAGING).mkdir()
        folder = SweepFolder(path, plan, {row["file_name"] for row in rows})
        try:
            yield folder
        finally:
            shutil.rmtree(path / STAGING, ignore_errors=True)
            if not folder.done:  # so that a corrected recipe can have it
                for name in (PLAN, METADATA, LOCK):
                    (path / name).unlink(missing_ok=True)


def _require_same(path: Path, plan: Plan) -> None:
    noted = path / PLAN
    if noted.is_file():
        if noted.read_text() != plan.digest:
            raise ValueError(
                f"{path}: it holds a sweep of another recipe. Name another folder, or remove it."
            )
        return
    if [p for p in path.iterdir() if not p.name.startswith(".")]:
        raise ValueError(f"{path}: it holds files that no sweep made. Name another folder.")
    write_atomically(noted, lambda unfinished: unfinished.write_text(plan.digest))
