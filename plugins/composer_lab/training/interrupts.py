"""Ctrl-C and SIGTERM, kept back until the work stands where it can be taken up again."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

KEPT_BACK = signal.SIGINT, signal.SIGTERM


class Interrupts:
    """Around work that asks, where it can stop, whether it should, and then calls :meth:`act`.

    The first signal is kept back, the second acts at once. Outside of the main thread, which alone
    hears signals, none is; one that is ignored stays so.
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
            KeyboardInterrupt: it was Ctrl-C, or another process received one.
            SystemExit: it was SIGTERM, with the exit code that a shell gives it.
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
