"""The checkpoint of a training: written whole or not at all, and read by its own run alone."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from composer.writing import write_atomically
from composer_lab.training.config import TrainingConfig
from composer_plugins.backends.memory import out_of_memory

_CONTENT = {"identity": dict, "step": int, "losses": list}
_DEFAULTS = {field.name: field.default for field in fields(TrainingConfig)}


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state``, whose "step" says where the training is."""
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except OSError as error:
        raise OSError(
            f"{error}; then start the same command again, which "
            + (f"resumes the checkpoint before step {state['step']}" if path.exists() else "begins")
        ) from error


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Refuse a folder that another training is writing; a lock is gone with its process."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another training is writing {folder}; wait for its end, or choose another folder"
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def read_checkpoint(
    path: Path, identity: Mapping[str, Any], device: torch.device
) -> dict[str, Any] | None:
    """The state at ``path``, None if there is none.

    Args:
        identity: what the state's "identity" must equal.
    """
    if not path.exists():
        return None
    state = _intact(path, device)
    # A setting that an older checkpoint does not know had its default then.
    before, now = {**_DEFAULTS, **state["identity"]}, {**_DEFAULTS, **identity}
    differing = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
    if differing:
        values = (f"{k} ({before.get(k)} there, {now.get(k)} here)" for k in differing)
        raise ValueError(
            f"{path} belongs to another run, which differs in {', '.join(values)}; choose another "
            "folder, or the same settings to resume"
        )
    return state


def _intact(path: Path, device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds; only one that is truly damaged is called so."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        if damaged is not None:
            raise ValueError(f"{damaged} does not have its checksum")
        state = torch.load(path, map_location=device, weights_only=True)
        kinds = {key: type(state[key]) for key in _CONTENT}
        if kinds != _CONTENT or state["step"] != len(state["losses"]):
            raise ValueError("it holds something else")
    except Exception as error:  # reading junk raises whatever the junk looks like
        what = getattr(error, "strerror", None) or str(error)
        if isinstance(error, MemoryError) or out_of_memory(error):
            what = "it does not fit the memory"
        elif not isinstance(error, OSError):
            what = ""
        if what:
            raise OSError(
                f"{path} cannot be read ({what}); mend that, and nothing is lost"
            ) from error
        raise ValueError(f"{path} is no intact checkpoint; move it away to start anew") from error
    return dict(state)
