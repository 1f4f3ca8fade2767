"""A sweep on a Ray cluster: actors that load the model once each."""

from __future__ import annotations

import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from composer.recipes import Trust
from composer_studio.sweeps.folder import SweepFolder
from composer_studio.sweeps.plan import Job, Plan
from composer_studio.sweeps.worker import Worker

LOCAL = "local"
PATIENCE = 5
"""Seconds to wait for an answer from an address; Ray itself waits for minutes."""
RESTARTS = 3
"""Times that a worker is started again after it died, for each of its jobs and in all."""
AHEAD = 2
"""Jobs that a worker has: one in hand and one waiting, so that it is never idle."""


class RayEngine:
    """Runs jobs by actors; see :data:`~composer_studio.sweeps.running.Engine`.

    The pictures come back as bytes, so that the folder need not be seen from the cluster.

    Args:
        address: of a cluster, or "local" for one on this machine.
        workers: actors; None for one a GPU, or one a CPU where there is none.
        gpus: of each worker; None for one where the cluster has any.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(
        self, address: str = LOCAL, workers: int | None = None, gpus: float | None = None
    ) -> None:
        try:
            import ray  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise ImportError("--ray needs ray. Install diffusion-composer[ray].") from error
        self._ray: Any = ray
        self._address, self._workers, self._gpus = address, workers, gpus

    def __call__(
        self, plan: Plan, jobs: Sequence[Job], folder: SweepFolder, trust: Trust
    ) -> Iterator[tuple[Job, list[Path]]]:
        begun = not self._ray.is_initialized()
        if begun:
            where = None if self._address == LOCAL else self._address
            _require_answer(self._address)
            more = {"include_dashboard": False} if where is None else {}
            self._ray.init(where, log_to_driver=False, **more)
        try:
            yield from self._run(plan, deque(jobs), folder, trust)
        finally:
            if begun:
                self._ray.shutdown()

    def _run(
        self, plan: Plan, jobs: deque[Job], folder: SweepFolder, trust: Trust
    ) -> Iterator[tuple[Job, list[Path]]]:
        actors = self._actors(len(jobs))
        recipes = self._ray.put(plan.recipes)
        doing: dict[Any, tuple[Any, Job]] = {}

        def give(actor: Any) -> None:
            if jobs:
                job = jobs.popleft()
                doing[actor.make.remote(job, plan.size, recipes, trust)] = actor, job

        for actor in actors * AHEAD:
            give(actor)
        while doing:
            (ready,), _ = self._ray.wait([*doing])
            actor, job = doing.pop(ready)
            contents = self._result(ready)
            give(actor)
            yield job, _staged(contents, folder.staging)

    def _actors(self, jobs: int) -> list[Any]:
        have = self._ray.cluster_resources()
        gpus = (1.0 if have.get("GPU") else 0.0) if self._gpus is None else self._gpus
        each = int(have.get("GPU", 0) / gpus) if gpus else int(have.get("CPU", 1))
        count = min(self._workers or max(each, 1), jobs)
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": RESTARTS}
        kind = self._ray.remote(**options, max_task_retries=RESTARTS)(Remote)
        return [kind.remote() for _ in range(count)]

    def _result(self, ready: Any) -> list[bytes]:
        try:
            found: list[bytes] = self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except self._ray.exceptions.RayError as error:
            raise RuntimeError(
                f"Ray: a worker died {RESTARTS + 1} times ({type(error).__name__}). Run the "
                "same command again, which goes on, with a smaller --batch if memory ran out."
            ) from error
        return found


class Remote:
    """A worker in another process."""

    _worker: Worker | None = None

    def make(
        self, job: Job, size: int | None, recipes: Sequence[dict[str, Any]], trust: Trust
    ) -> list[bytes]:
        """The files of a job; the first loads the model."""
        if self._worker is None:
            self._worker = Worker(recipes, trust)
        with tempfile.TemporaryDirectory() as folder:
            files = self._worker.save(job, Path(folder), size)
            return [file.read_bytes() for file in files]


def _require_answer(address: str) -> None:
    """Raise a ConnectionError if nothing answers at an address HOST:PORT; others are Ray's own."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConnectionError(
            f"--ray: nothing answers at {address}. Start a cluster by `ray start --head`, or leave "
            "the address out."
        ) from error


def _staged(contents: Sequence[bytes], staging: Path) -> list[Path]:
    files = [staging / f"{k}.png" for k in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return files
