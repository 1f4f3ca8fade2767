"""Show formulas of docstrings as they are written: ``|x|`` and ``(B, *shape)`` are no markup, and
an indented paragraph keeps its lines."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.*?``)")
SEVERAL = re.compile(r"^\s+\w+(, \w+)+: ")
ZERO_WIDTH = "\u200b"
"""A space that ends no name of a field."""


def escaped(line: str) -> str:
    """A line whose bars and stars are text, except in literals."""
    parts = LITERAL.split(line)
    return "".join(p if k % 2 else re.sub(r"([*|])", r"\\\1", p) for k, p in enumerate(parts))


def joined(line: str) -> str:
    """A line that describes several arguments, with their names as one: "low, high: ..."."""
    return SEVERAL.sub(lambda names: names[0].replace(", ", f",{ZERO_WIDTH}"), line)


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def rewrite(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place, before napoleon reads its sections."""
    written: list[str] = []
    margin, formula = 0, False
    for number, line in enumerate(lines):
        if line.strip():
            opens = number > 1 and not lines[number - 1].strip() and indent_of(line) > margin
            formula = indent_of(line) > margin if formula else opens
            if opens and not re.search(r"::$", lines[number - 2]):
                written += [" " * margin + "::", ""]
            margin = margin if formula else indent_of(line)
        written.append(line if formula else escaped(joined(line)))
    lines[:] = written


def whole(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Join what napoleon took for the type of a constant or property: "its width: that of ..."."""
    if what in ("data", "attribute", "property"):
        for place, line in enumerate(lines):
            if line.startswith(":type: "):
                lines[0] = f"{line.removeprefix(':type: ')}: {lines[0]}"
                del lines[place]
                break


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    app.connect("autodoc-process-docstring", whole, priority=600)
    return {"parallel_read_safe": True}
