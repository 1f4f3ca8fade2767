"""The cost of a sampling call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(repr=False)
class Stats:
    """The cost of one sampling call. Rows are counted per image.

    ``requested`` and ``evaluated`` count requests, each of all images. Where images take steps of
    their own, as with Adaptive, a request is of one image: use ``rows`` / images.

    Attributes:
        requested: rows per image that the plugins requested.
        evaluated: rows per image that the model computed, after deduplication.
        rows: rows that the network computed for all images together; of a Canvas, crops.
        calls: calls of the backend.
        seconds: time of the whole call.
    """

    requested: int = 0
    evaluated: int = 0
    rows: int = 0
    calls: int = 0
    seconds: float = 0.0
    _seconds: float = 0.0
    # Start and end events of calls on a CUDA device whose time has not been read yet.
    _events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(
        default_factory=list, compare=False
    )

    @property
    def model_seconds(self) -> float:
        """Time spent inside the backend. On a CUDA device, events measure it, and reading it
        waits for the device."""
        for began, ended in self._events:
            ended.synchronize()
            self._seconds += began.elapsed_time(ended) / 1000
        self._events.clear()
        return self._seconds

    def timing(self, device: torch.device) -> AbstractContextManager[object]:
        """Add the time of a block to ``model_seconds``, without a wait for the device."""
        return self._timing_events(device) if device.type == "cuda" else _Clock(self)

    @contextmanager
    def _timing_events(self, device: torch.device) -> Iterator[None]:
        stream = torch.cuda.current_stream(device)
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record(stream)
        yield
        ended.record(stream)
        self._events.append((began, ended))

    def __repr__(self) -> str:
        names = "requested", "evaluated", "rows", "calls", "model_seconds", "seconds"
        return f"Stats({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles, which hold no events."""
        _ = self.model_seconds
        return vars(self)


class _Clock:
    """Adds the time of a block; a class, because a generator as a context is slower."""

    __slots__ = "_began", "_stats"

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._stats._seconds += time.perf_counter() - self._began
