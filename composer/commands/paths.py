"""Paths that commands are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class NamedPath(click.Path):
    """A path that is not the empty text, which would mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it must be a path, got ''. Write . for the current folder.", param, ctx)
        return super().convert(value, param, ctx)
