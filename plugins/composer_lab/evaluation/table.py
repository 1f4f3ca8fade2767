"""Tables whose lines take long: each is kept as it is done, and not done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from composer import Sampler
from composer.recipes import describe
from composer.writing import require_file, require_writable, write_atomically

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class KeptTable:
    """The lines that are done, and the JSON file that keeps them, if any."""

    rows: list[Row]
    file: Path | None

    @classmethod
    def read(cls, file: Path | None) -> KeptTable:
        """What a file holds, or nothing yet; None keeps nothing."""
        if file is None:
            return cls([], None)
        if not file.absolute().parent.is_dir():
            raise ValueError(f"{file.parent} is no folder; make it first")
        require_file(file)
        rows = _rows(file)
        require_writable(file)
        return cls(rows, file)

    def find(self, key: Row, needed: Sequence[str] = ()) -> Row | None:
        """The line with everything in ``key``, whose ``needed`` values are known; or None.

        Looks at the file again before it says None: another process may have done it since.
        """
        found = self._found(key, needed)
        if found is None:
            self._take_in()
            found = self._found(key, needed)
        return found

    def _found(self, key: Row, needed: Sequence[str]) -> Row | None:
        for row in self.rows:
            if key.items() <= row.items() and all(row.get(name) is not None for name in needed):
                return row
        return None

    def add(self, row: Row) -> None:
        """Take in one more line, and write all: whole or not at all.

        What another process has added since is kept. Should both write in the same moment, a line
        is lost, and done again by the next command that asks for it.
        """
        self._take_in()
        row = json.loads(json.dumps(row))  # as it will be read: a tuple becomes a list
        if row not in self.rows:
            self.rows.append(row)
        if self.file is not None:
            text = json.dumps(self.rows, indent=1)
            write_atomically(self.file, lambda path: path.write_text(text))

    def _take_in(self) -> None:
        if self.file is not None:
            self.rows.extend(other for other in _rows(self.file) if other not in self.rows)


def _rows(file: Path) -> list[Row]:
    """The lines of a file, or none if it is not there yet."""
    if not file.exists():
        return []
    try:
        rows = json.loads(file.read_text())
    except OSError as error:
        raise OSError(f"{file} cannot be read ({error.strerror}); name another file") from error
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); name another file") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} holds no table; name another file")
    return rows


def recipe_of(sampler: Sampler) -> dict[str, Any]:
    """What a name in a table stands for, that a line is not taken for one of another meaning."""
    whole = describe(sampler.stack)
    return {name: whole[name] for name in ("plugins", "solver", "num_inference_steps")}


def digest(recipe: Any) -> str:
    """A word of twelve letters for something that JSON can hold, to be kept in its place."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
