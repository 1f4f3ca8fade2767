"""A folder of pictures with metadata.jsonl: an imagefolder of Hugging Face's datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from composer.writing import make_folder, write_atomically

METADATA = "metadata.jsonl"
LOCK = ".composer.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; nobody else writes into it meanwhile. An error leaves no new lock file.

    Raises:
        RuntimeError: somebody else holds it.
    """
    file = folder / LOCK
    new = not file.exists()
    try:
        with FileLock(file, timeout=0):
            try:
                yield
            except BaseException:
                if new:
                    with suppress(OSError):  # some systems keep a file that is open
                        file.unlink()
                raise
    except Timeout as error:
        raise RuntimeError(
            f"{folder}: another command is writing into it. Wait for its end, or name another "
            "folder."
        ) from error


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; remove it again if an error leaves it empty.

    Raises:
        OSError: it cannot be made.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty
            for place in new:
                place.rmdir()
        raise


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metadata.jsonl; none if there is no such file. A last line that a kill cut short
    is left out.

    Raises:
        ValueError: it holds something else.
    """
    file = folder / METADATA
    if not file.is_file():
        return []
    rows, lines = [], file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            named = isinstance(row["file_name"], str)
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                continue
            raise ValueError(f"{file}:{number}: it is no row of pictures.") from error
        rows += [row] if named else []
    return rows


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write metadata.jsonl, whole."""
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    write_atomically(folder / METADATA, lambda unfinished: unfinished.write_text(text))
