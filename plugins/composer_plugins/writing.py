"""Files that are written whole or not at all."""

from __future__ import annotations

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _remove_left_over(path)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    # torch and safetensors have errors of their own for a full disk.
    except (OSError, RuntimeError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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


def _remove_left_over(path: Path) -> None:
    """Temporary files of processes that were killed while they wrote: none writes for an hour."""
    for file in path.parent.glob(f".{path.name}.*"):
        if file.name.rpartition(".")[2].isdecimal() and time.time() - file.stat().st_mtime > 3600:
            file.unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception) -> OSError:
    return OSError(
        f"{path} could not be written ({_reason(error)}); make room, or name a place that can be "
        "written to"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    # torch says where in its source it noticed, and no more.
    return "the disk may be full" if "enforce fail" in words else words
