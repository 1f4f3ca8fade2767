"""The exceptions that have no fitting built-in, and what messages show of others' values."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_LISTED = 40  # names at most: a sentence, not a page
_NAME = 100  # letters of a name for which a nearest one is looked up; the time grows with them
_MESSAGE = 600

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxtuple = 8


class UnknownNameError(LookupError):
    """A name that nothing known bears: no installed package, no label of a model."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        close = nearest(name, names)
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        known_names = f"known: {', '.join(names[:_LISTED])}{more}"
        hint = f"did you mean {' or '.join(close)}?" if close else known_names
        super().__init__(f"unknown {kind} {shown(name)}; {hint}")


class NonFiniteError(ArithmeticError):
    """A model returned NaN or Inf."""


def nearest(name: object, known: Iterable[str]) -> list[str]:
    """Up to three known names that are like this one."""
    if not isinstance(name, str) or len(name) > _NAME:
        return []
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)


def shown(value: object) -> str:
    """A value as a message shows it: its ``repr``, shortened, whatever that is or raises."""
    try:
        return _short.repr(value)
    except Exception:  # a number of too many digits, somebody's __repr__
        return f"a {type(value).__name__}"


def said(error: BaseException) -> str:
    """The type of an error and what it says, shortened; an error may fail to say anything."""
    try:
        words = str(error)
    except BaseException:  # somebody's __str__
        words = "its message cannot be shown"
    return printable(f"{type(error).__name__}: {shortened(words)}")


def printable(words: str) -> str:
    """Text that any stream takes: half letters of UTF-16 are none."""
    return words.encode("utf-8", "replace").decode()


def shortened(words: str) -> str:
    """A message of any length as one that is read."""
    return words if len(words) <= _MESSAGE else f"{words[: _MESSAGE - 3]}..."
