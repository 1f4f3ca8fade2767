"""How the studio's commands end when something is wrong: one line, exit code 2."""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import click

from composer.commands.errors import STOPPED, BadInput

F = TypeVar("F", bound=Callable[..., Any])


class StoppedError(Exception):
    """Ctrl-C, and how to go on."""


def in_one_line(command: F) -> F:
    """Show what is wrong as one line on stderr, and exit with 2; warnings are a line each."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _one_line
                return command(*args, **kwargs)
        except StoppedError as stopped:
            click.echo(f"Stopped. {stopped}", err=True)
            sys.exit(STOPPED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError) as e:
            raise BadInput(_words(e)) from e
        except ImportError as e:
            raise BadInput(_words(e)) from e

    return wrapper  # type: ignore[return-value]


def _one_line(message: Warning | str, category: Any, *rest: Any, **more: Any) -> None:
    if issubclass(category, UserWarning):
        click.echo(f"Warning: {' '.join(str(message).split())}", err=True)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return _TRUST.sub(_option, str(error)) or type(error).__name__


def _option(found: re.Match[str]) -> str:
    """The library's ``trust=`` as the option of a command."""
    names = re.findall(r"'(\w+)'", found[1]) or ["backend"]
    return "Add " + " ".join(f"--trust {name}" for name in names) + (found[2] or "")


_TRUST = re.compile(
    r"Pass trust=(\[.*?\]|True)( if you trust (?:it|the recipe))?(, or your own[a-z ]* backend=)?"
)
