"""Code of other packages, which may raise, exit and print what it likes."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType

from composer.errors import said


class Foreign(contextlib.AbstractContextManager["Foreign"]):
    """Runs a block of other people's code.

    Whatever it raises ends the block and is kept in words, also where it exits the process or
    raises no Exception; a KeyboardInterrupt is the user's and passes. What it prints goes to
    stderr, for stdout may be somebody's JSON.

    Attributes:
        error: the type and message of what was raised, None if nothing was.
    """

    error: str | None = None

    def __enter__(self) -> Foreign:
        self._aside = contextlib.redirect_stdout(sys.stderr)
        self._aside.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._aside.__exit__(kind, error, trace)
        if error is None or isinstance(error, KeyboardInterrupt):
            return False
        self.error = said(error)
        return True
