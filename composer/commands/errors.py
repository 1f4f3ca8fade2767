"""Errors of commands: one line on stderr, exit code 2."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from safetensors import SafetensorError

F = TypeVar("F", bound=Callable[..., Any])
STOPPED = 130
"""Exit code of what Ctrl-C stopped."""


class BadInput(click.ClickException):
    """What a command cannot work with."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"Error: {' '.join(self.message.split())}", err=True)


@contextmanager
def one_line() -> Iterator[None]:
    """Show each error of click or the system as one line; say after Ctrl-C how to go on."""
    try:
        yield
    except (BadInput, click.exceptions.NoArgsIsHelpError):  # the latter is the help itself
        raise
    except click.ClickException as error:
        raise BadInput(_sentence(error)) from error
    except BrokenPipeError:  # click ends quietly when nobody reads any more
        raise
    except OSError as error:  # a full disk below the standard output, say
        raise BadInput(error.strerror or str(error)) from error
    except KeyboardInterrupt:
        words = "Stopped. Files that were written are whole. The same command begins or goes on."
        click.echo(words, err=True)
        raise click.exceptions.Exit(STOPPED) from None


def one_sentence(command: F) -> F:
    """Show the message of an error instead of a traceback."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            RuntimeError,
            OSError,
            SafetensorError,
        ) as error:
            raise BadInput(str(error)) from error

    return wrapper  # type: ignore[return-value]


def _sentence(error: click.ClickException) -> str:
    """The message, and for a wrong option where to read about them."""
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return message
    ended = message if message.endswith((".", "?")) else f"{message}."
    return f"{ended} See {context.command_path} --help."
