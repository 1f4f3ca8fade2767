"""Ctrl-C and SIGTERM, delayed until the work can be resumed."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

KEPT_BACK = signal.SIGINT, signal.SIGTERM


class Interrupts:
    """A context for work that checks at each safe point whether to stop, then calls :meth:`act`.

    It delays the first signal; the second acts at once. It does nothing outside of the main thread,
    which alone receives signals, and for signals that the process ignores.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in KEPT_BACK:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def act(self) -> None:
        """Do what the signal would have done.

        Raises:
            KeyboardInterrupt: the signal was Ctrl-C, or another process received one.
            SystemExit: the signal was SIGTERM; the exit code is the one that a shell gives it.
        """
        number, self.received = self.received, None
        if number is None:
            raise KeyboardInterrupt
        if self._before[number] is signal.SIG_DFL:
            raise SystemExit(128 + number)
        self._before[number](number, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = number
        if again:
            self.act()
