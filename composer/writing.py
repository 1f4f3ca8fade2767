"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file beside ``path``, flush it to the disk, then rename it in place.

    Raises:
        OSError: in one sentence, whatever the writing library raises; ``path`` is as it was.
    """
    require_file(path)
    _remove_left_over(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mode = _mode(temporary)
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if _of_the_disk(error):
            raise _unwritable(path, error) from error
        raise


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Write a folder's files into a temporary folder beside it, then move each in place: none is
    half-written, whatever becomes of the others.

    Raises:
        OSError: in one sentence; the files of ``path`` are as they were.
    """
    make_folder(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        try:
            write(Path(place))
        except Exception as error:
            if _of_the_disk(error):
                raise _unwritable(path, error) from error
            raise
        files = sorted(p for p in Path(place).rglob("*") if p.is_file())
        mode = _mode(Path(place) / ".new")
        for file in files:
            target = path / file.relative_to(place)
            make_folder(target.parent)
            file.chmod(mode)
            file.replace(target)


def require_file(path: Path) -> None:
    """Refuse a file to write that is a folder; found before the work that fills it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work that fills it; makes its folder.

    Raises:
        OSError: in one sentence.
    """
    require_file(path)
    make_folder(path.parent)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass  # asking for permission alone does not see a file system that takes no writing
    except OSError as error:
        raise _unwritable(path, error) from error


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


def _remove_left_over(path: Path) -> None:
    """Temporary files of processes that were killed while they wrote: none writes for an hour."""
    for file in path.parent.glob(f".{glob.escape(path.name)}.*"):
        # Another process may remove it first, and another user's may not be removed.
        with contextlib.suppress(OSError):
            old = time.time() - file.stat().st_mtime > 3600
            if old and file.name.rpartition(".")[2].isdecimal():
                file.unlink()


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
