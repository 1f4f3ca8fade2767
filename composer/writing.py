"""Files that are written whole or not at all."""

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
"""The name of what is being written: the process, a number of its own, and what it will be."""
_STALE = 3600
"""Seconds after which nobody, be it on another machine, still writes to an untouched file."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file beside ``path``, flush it to the disk, then rename it in place.

    The temporary file has the suffix of ``path``.

    Raises:
        OSError: in one sentence, whatever the writing library raises; ``path`` is as it was.
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
    """Write a folder's files into a temporary folder beside it, then move each in place: none is
    half-written, whatever becomes of the others.

    Raises:
        OSError: in one sentence; unless a file cannot be moved, those of ``path`` are as they were.
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
    """Remove what processes that were killed have left unfinished in a folder, if it is there.

    Call it under a lock of the folder, before anything is written: whatever this process seems to
    be writing there is then of one that had its number.
    """
    for place in [*folder.glob(".*")]:
        found = _UNFINISHED.fullmatch(place.name)
        if found and (int(found["pid"]) == os.getpid() or not _lives(int(found["pid"]))):
            _remove(place)


def require_file(path: Path) -> None:
    """Refuse a file to write that is a folder; found before the work that fills it."""
    if os.path.isdir(path):  # noqa: PTH112  # Path's own raises of a name that is too long
        raise IsADirectoryError(f"{path} is a folder; name a file")


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work that fills it; makes its folder.

    Raises:
        OSError: in one sentence.
    """
    require_file(path)
    make_folder(path.parent)
    with _in_a_sentence(path):
        # Asking for permission alone does not see a file system that takes no writing.
        unfinished = _temporary(path)
        unfinished.touch()
        unfinished.unlink()


def require_folder(path: Path) -> None:
    """Refuse a folder to write into that is something else; it need not be there yet."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; name a folder")


def make_folder(path: Path) -> Path:
    """The folder, made if need be.

    Raises:
        OSError: in one sentence: a file is in its place, or it may not be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{path} cannot be a folder ({error.strerror}); name another place"
        ) from error
    return path


def _mode(new: Path) -> int:
    """Of a new file, as the umask says: safetensors lets nobody else read what it writes."""
    new.touch()
    return new.stat().st_mode


def _settle(file: Path, mode: int) -> None:
    """Put a finished file on the disk."""
    file.chmod(mode)
    with file.open("rb") as content:
        os.fsync(content.fileno())


def _temporary(path: Path) -> Path:
    """Where to write what will be ``path``; threads of one process, too, have each their own."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")


def _remove_stale(path: Path) -> None:
    """Remove what processes that are gone have left of ``path``, if it is old."""
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
    """Remove a file or a folder; another user's stays."""
    with contextlib.suppress(OSError):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink()


def _lives(pid: int) -> bool:
    """Whether a process of this number is running here; True where nobody can tell."""
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
    """Around the writing of ``path``.

    Raises:
        OSError: in place of what libraries raise of the disk.
    """
    try:
        yield
    except Exception as error:
        if _of_the_disk(error):
            raise _unwritable(path, error) from error
        raise


def _of_the_disk(error: BaseException) -> bool:
    """Whether a file could not be written: torch's own error of it is one of many kinds."""
    words = "enforce fail at inline_container", "PytorchStreamWriter"
    return isinstance(error, OSError | SafetensorError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _unwritable(path: Path, error: BaseException) -> OSError:
    return OSError(
        f"{path} could not be written ({_reason(error)}); make room, or name a place that can be "
        "written to"
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    # torch says where in its source it noticed, and no more.
    return "the disk may be full" if isinstance(error, RuntimeError) else words
