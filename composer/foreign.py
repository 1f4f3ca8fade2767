"""Run code of other packages, which may raise, exit or print."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType

from composer.errors import said


class Foreign(contextlib.AbstractContextManager["Foreign"]):
    """Run a block of other packages' code, and keep its error as text.

    It catches every exception, SystemExit included, and lets KeyboardInterrupt pass. It sends
    printed text to stderr, because stdout may carry JSON.

    Attributes:
        error: the type and message of the exception, None if the block raised nothing.
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
