"""Errors of commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click
from safetensors import SafetensorError

F = TypeVar("F", bound=Callable[..., Any])


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
            raise click.ClickException(str(error)) from error

    return wrapper  # type: ignore[return-value]
