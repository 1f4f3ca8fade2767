"""Errors and warnings as sentences in the page."""

from __future__ import annotations

import functools
import html
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gradio as gr

from composer_studio.written import WrittenError

F = TypeVar("F", bound=Callable[..., Any])
_LONGEST = 600
_EXPECTED = (
    ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError, ImportError,
    MemoryError,
)  # fmt: skip


def in_the_page(handler: F) -> F:
    """A handler of the page, or a generator of one, whose errors are sentences there."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with _said():
                yield from handler(*args, **kwargs)

        return stream  # type: ignore[return-value]

    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _said():
            return handler(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def warn(sentence: str) -> None:
    """Show a warning."""
    gr.Warning(_plain(sentence))


@contextmanager
def _said() -> Iterator[None]:
    """Raise what is wrong as an error that the page shows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except gr.Error:
        raise
    except _EXPECTED as error:
        raise gr.Error(sentence_of(error), duration=None, print_exception=False) from error
    except Exception as error:
        traceback.print_exc(file=sys.stderr)  # for the owner; the visitor learns no more
        words = "Something went wrong. The terminal where the page runs says what."
        raise gr.Error(words, duration=None, print_exception=False) from error


def sentence_of(error: BaseException) -> str:
    """What is wrong, without markup, and with no path of the server."""
    if isinstance(error, WrittenError):
        return _plain("\n".join(error.problems[:3]))
    if isinstance(error, OSError):
        return _plain(f"A file cannot be used ({error.strerror or type(error).__name__}).")
    return _plain(str(error) or type(error).__name__)


def _plain(text: str) -> str:
    """Markup is shown as it was typed: the text may be a stranger's."""
    return html.escape(text[:_LONGEST], quote=False).replace("\n", "<br>")
