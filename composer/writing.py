"""Write files completely or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

_UNFINISHED = re.compile(r"\.(?P<pid>\d+)-[0-9a-f]{8}\.(?P<name>.+)")
"""The name of a temporary file: the process, a number, and the final name."""
_STALE = 3600
"""Seconds after which no process, even on another machine, still writes to an unchanged file."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file next to ``path``, flush it to the disk, then rename it.

    The temporary file has the suffix of ``path``.

    Raises:
        OSError: the file cannot be written, whatever the writing library raised; ``path`` does not
            change.
    """
    require_file(path)
    _remove_stale(path)
    temporary = _temporary(path)
    with _in_a_sentence(path):
        try:
            mode = _mode(temporary)
            write(temporary)
            _settle(temporary, mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Write a folder's files into a temporary folder next to it, then move each in place.

    Each file is complete, even if another one fails.

    Raises:
        OSError: a file cannot be written; the files in ``path`` do not change, unless a move fails.
    """
    make_folder(path)
    _remove_stale(path)
    place = _temporary(path)
    try:
        with _in_a_sentence(path):
            place.mkdir()
            write(place)
            files = sorted(p for p in place.rglob("*") if p.is_file())
            mode = _mode(place / ".new")
            for file in files:
                _settle(file, mode)
        targets = [path / file.relative_to(place) for file in files]
        for target in targets:  # all of them before any is replaced
            make_folder(target.parent)
            require_file(target)
        for file, target in zip(files, targets, strict=True):
            with _in_a_sentence(target):
                file.replace(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def remove_left_over(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder, if it exists.

    Call it under a lock of the folder, before writing. Temporary files with the number of this
    process then belong to an earlier process with the same number.
    """
    for place in [*folder.glob(".*")]:
        found = _UNFINISHED.fullmatch(place.name)
        if found and (int(found["pid"]) == os.getpid() or not _lives(int(found["pid"]))):
            _remove(place)


def require_file(path: Path) -> None:
    """Raise an IsADirectoryError if a file to write is a folder; call it before the work."""
    if os.path.isdir(path):  # noqa: PTH112  # Path's own raises of a name that is too long
        raise IsADirectoryError(f"{path} is a folder. Name a file.")


def require_writable(path: Path) -> None:
    """Make the folder of a file, and test that the file can be written; call it before the work.

    Raises:
        OSError: it cannot be written.
    """
    require_file(path)
    make_folder(path.parent)
    with _in_a_sentence(path):
        # A test of permissions alone does not detect a read-only file system.
        unfinished = _temporary(path)
        unfinished.touch()
        unfinished.unlink()


def require_folder(path: Path) -> None:
    """Raise a NotADirectoryError if a folder to write into is a file; it need not exist yet."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file. Name a folder.")


def make_folder(path: Path) -> Path:
    """Make a folder if it is missing, and return it.

    Raises:
        OSError: a file is in its place, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{path} cannot be a folder ({error.strerror}). Name another place."
        ) from error
    return path


def _mode(new: Path) -> int:
    """The mode of a new file by the umask; safetensors makes files that only the owner can read."""
    new.touch()
    return new.stat().st_mode


def _settle(file: Path, mode: int) -> None:
    """Set the mode of a finished file and flush it to the disk."""
    file.chmod(mode)
    with file.open("rb") as content:
        os.fsync(content.fileno())


def _temporary(path: Path) -> Path:
    """The temporary name for ``path``; each thread of a process has its own."""
    name = path.name or "folder"  # of Path("."), which has none
    return path.parent / f".{os.getpid()}-{secrets.token_hex(4)}.{name}"


def _remove_stale(path: Path) -> None:
    """Remove old temporary files for ``path`` of processes that ended."""
    before = re.compile(rf"\.{re.escape(path.name)}\.(?P<pid>\d+)")  # of earlier versions
    for place in path.parent.glob(".*"):
        found = _UNFINISHED.fullmatch(place.name) or before.fullmatch(place.name)
        if found is None or found.groupdict().get("name", path.name) != path.name:
            continue
        # Another process may remove it first.
        with contextlib.suppress(OSError):
            old = time.time() - place.stat().st_mtime > _STALE
            if old and not _lives(int(found["pid"])):
                _remove(place)


def _remove(place: Path) -> None:
    """Remove a file or a folder; leave those of other users."""
    with contextlib.suppress(OSError):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink()


def _lives(pid: int) -> bool:
    """Whether a process of this number runs here; True if that is unknown."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _in_a_sentence(path: Path) -> Iterator[None]:
    """Turn the libraries' disk errors while writing ``path`` into one OSError.

    Raises:
        OSError: ``path`` cannot be written.
    """
    try:
        yield
    except Exception as error:
        if not _of_the_disk(error):
            raise
        raise OSError(
            f"{path} could not be written ({_reason(error)}). Free some space, or name a writable "
            "place."
        ) from error


def _of_the_disk(error: BaseException) -> bool:
    """Whether an error means that a file could not be written; torch has several types for it."""
    words = "enforce fail at inline_container", "PytorchStreamWriter"
    return isinstance(error, OSError | SafetensorError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    # torch's message names only a place in its source.
    return "the disk may be full" if isinstance(error, RuntimeError) else words
