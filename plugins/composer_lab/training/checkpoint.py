"""The checkpoint of a training: written atomically, and read by its own run only."""

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
    """Write ``state``; its "step" is the step that the training has reached."""
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except OSError as error:
        raise OSError(
            f"{error}; then start the same command again, which "
            + (f"resumes the checkpoint before step {state['step']}" if path.exists() else "begins")
        ) from error


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a folder, or raise a ValueError if another training writes to it. The lock ends with its
    process."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another training writes to {folder}. Wait for its end, or choose another folder."
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def read_checkpoint(
    path: Path, identity: Mapping[str, Any], device: torch.device
) -> dict[str, Any] | None:
    """The state at ``path``, or None without one.

    Args:
        identity: what the state's "identity" must equal.
    """
    if not path.exists():
        return None
    state = _intact(path, device)
    # A setting that an older checkpoint lacks had its default then.
    before, now = {**_DEFAULTS, **state["identity"]}, {**_DEFAULTS, **identity}
    differing = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
    if differing:
        values = (f"{k} ({before.get(k)} there, {now.get(k)} here)" for k in differing)
        raise ValueError(
            f"{path} belongs to a run with other settings: {', '.join(values)}. Choose another "
            "folder, or the same settings to resume."
        )
    return state


def _intact(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of a checkpoint; raises a ValueError if it is damaged, else an OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not verify the checksums
        if damaged is not None:
            raise ValueError(f"{damaged} does not have its checksum")
        state = torch.load(path, map_location=device, weights_only=True)
        kinds = {key: type(state[key]) for key in _CONTENT}
        if kinds != _CONTENT or state["step"] != len(state["losses"]):
            raise ValueError("it holds something else")
    except Exception as error:  # reading a damaged file may raise anything
        what = getattr(error, "strerror", None) or str(error)
        if isinstance(error, MemoryError) or out_of_memory(error):
            what = "it does not fit the memory"
        elif not isinstance(error, OSError):
            what = ""
        if what:
            raise OSError(f"{path} cannot be read ({what}). Correct that and resume.") from error
        raise ValueError(
            f"{path} must be an intact checkpoint. Move it away to start again."
        ) from error
    return dict(state)
