"""The exceptions that have no fitting built-in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 40  # names at most: a sentence, not a page


class UnknownNameError(LookupError):
    """A name that nothing known bears: no installed package, no label of a model."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        known_names = f"known: {', '.join(names[:_LISTED])}{more}"
        hint = f"did you mean {' or '.join(close)}?" if close else known_names
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class NonFiniteError(ArithmeticError):
    """A model returned NaN or Inf."""
