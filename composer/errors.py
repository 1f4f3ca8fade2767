"""Exceptions without a fitting built-in, and short forms of values and errors for messages."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_LISTED = 40  # most names in a message
_NAME = 100  # most letters of a name whose nearest match is searched; the time grows with them
_MESSAGE = 600

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxtuple = 8


class UnknownNameError(LookupError):
    """A name that no installed package offers, or that is no label of the model."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        close = nearest(name, names)
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        known_names = f"Known: {', '.join(names[:_LISTED])}{more}."
        hint = f"Did you mean {' or '.join(close)}?" if close else known_names
        super().__init__(f"Unknown {kind} {shown(name)}. {hint}")


class NonFiniteError(ArithmeticError):
    """A model returned NaN or Inf."""


def unstopped(call: Callable[[], T], who: str) -> T:
    """Call a function; turn a StopIteration, which would end a caller's loop, into an error.

    Raises:
        RuntimeError: it raised StopIteration; the message names ``who``.
    """
    try:
        return call()
    except StopIteration as error:
        raise RuntimeError(
            f"{who} raised StopIteration. Give next() a default, or catch the error there."
        ) from error


@contextmanager
def owned(owner: str) -> Iterator[None]:
    """A context whose TypeErrors and ValueErrors begin with the name of ``owner``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError) or str(error).startswith(f"{owner}: "):
            raise
        raise type(error)(f"{owner}: {error}") from error


def nearest(name: object, known: Iterable[str]) -> list[str]:
    """Up to three known names that resemble this one."""
    if not isinstance(name, str) or len(name) > _NAME:
        return []
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)


def shown(value: object) -> str:
    """The shortened ``repr`` of a value for a message; its type where ``repr`` raises."""
    try:
        return _short.repr(value)
    except Exception:  # a number of too many digits, or a __repr__ that raises
        return f"a {type(value).__name__}"


def said(error: BaseException) -> str:
    """The type and the shortened message of an error, even if its ``__str__`` raises."""
    try:
        words = str(error)
    except BaseException:  # a __str__ that raises
        words = "its message cannot be shown"
    return printable(f"{type(error).__name__}: {shortened(words)}")


def printable(words: str) -> str:
    """Text that any stream can write, with lone surrogates of UTF-16 replaced."""
    return words.encode("utf-8", "replace").decode()


def shortened(words: str) -> str:
    """A message cut to a readable length."""
    return words if len(words) <= _MESSAGE else f"{words[: _MESSAGE - 3]}..."
