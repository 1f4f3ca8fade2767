"""What a sampling call costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Stats:
    """The cost of one sampling call. Rows are counted per image.

    Attributes:
        requested: rows the plugins asked for.
        evaluated: rows the model computed, after deduplication.
        rows: evaluated, for all images together.
        calls: calls of the backend.
        model_seconds: time spent inside the backend.
        seconds: time of the whole call.
    """

    requested: int = 0
    evaluated: int = 0
    rows: int = 0
    calls: int = 0
    model_seconds: float = 0.0
    seconds: float = 0.0
