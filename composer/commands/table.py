"""Aligned text, and JSON, for commands that list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def echo_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; only the last may be of any width."""
    lines = [list(head), *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _one_line(cell: str) -> str:
    """Text without line breaks and terminal control characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(cell.split()))


def echo_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2))
