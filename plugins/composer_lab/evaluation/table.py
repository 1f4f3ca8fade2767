"""Tables whose rows take long to compute: each row is saved when it is done, and reused."""

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
    """The finished rows of a table, and the JSON file that stores them, if any."""

    rows: list[Row]
    file: Path | None

    @classmethod
    def read(cls, file: Path | None) -> KeptTable:
        """Read a table from a file, which need not exist yet; None stores nothing."""
        if file is None:
            return cls([], None)
        if not file.absolute().parent.is_dir():
            raise ValueError(f"{file.parent} must be a folder. Make it first.")
        require_file(file)
        rows = _rows(file)
        require_writable(file)
        return cls(rows, file)

    def find(self, key: Row, needed: Sequence[str] = ()) -> Row | None:
        """The row that has every item of ``key`` and a value for each of ``needed``, or None.

        Reads the file again before it returns None, because another process may have added the row.
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
        """Add a row and write the whole file atomically.

        Rows that another process has added stay. If both write at the same moment, one row is lost,
        and the next command that needs it computes it again.
        """
        self._take_in()
        row = json.loads(json.dumps(row))  # as JSON reads it: a tuple becomes a list
        if row not in self.rows:
            self.rows.append(row)
        if self.file is not None:
            text = json.dumps(self.rows, indent=1)
            write_atomically(self.file, lambda path: path.write_text(text))

    def _take_in(self) -> None:
        if self.file is not None:
            self.rows.extend(other for other in _rows(self.file) if other not in self.rows)


def _rows(file: Path) -> list[Row]:
    """The rows of a file, or none if the file does not exist."""
    if not file.exists():
        return []
    try:
        rows = json.loads(file.read_text())
    except OSError as error:
        raise OSError(f"{file} cannot be read ({error.strerror}). Name another file.") from error
    except ValueError as error:
        raise ValueError(f"{file} must be JSON ({error}). Name another file.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} must hold a table. Name another file.")
    return rows


def recipe_of(sampler: Sampler) -> dict[str, Any]:
    """The recipe behind a name in a table, so that rows of other settings do not match."""
    whole = describe(sampler.stack)
    return {name: whole[name] for name in ("plugins", "solver", "num_inference_steps")}


def digest(recipe: Any) -> str:
    """A hash of twelve letters that stands for a JSON value."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
