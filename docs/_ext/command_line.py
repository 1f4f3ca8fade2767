"""Write the reference of the command line from its click commands, one page per command."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
from pages import write_folder
from sphinx.application import Sphinx

from composer.cli import main

FOLDER = "commands"
MARKUP = re.compile(r"([\\`*_{}\[\]<>|#$])")


def plain(text: str) -> str:
    """Text in Markdown that shows as it is, with code in backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(p if k % 2 else re.sub(MARKUP, r"\\\1", p) for k, p in enumerate(parts))


def described(command: click.Command) -> str:
    """The help in Markdown; a paragraph after click's mark ``\\b`` keeps its lines."""
    text = (command.help or "").partition("\f")[0].strip()
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        first, _, rest = paragraph.partition("\n")
        if first.strip() == "\b":
            paragraphs.append(f"```text\n{textwrap.dedent(rest)}\n```")
        else:
            paragraphs.append(plain(" ".join(paragraph.split())))
    return "\n\n".join(paragraphs)


def options(command: click.Command, context: click.Context) -> str:
    """A table of the options; an argument is in the usage."""
    rows = ["| option | what it does |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            names, text = record[0].replace("|", "\\|"), " ".join(record[1].split())
            rows.append(f"| `{names}` | {plain(text)} |")
    return "\n".join(rows)


def sections(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    """The command and its subcommands, each with usage, help and options."""
    context = click.Context(command, info_name=path.rsplit(maxsplit=1)[-1], parent=parent)
    yield f"{'#' * len(path.split()[1:])} {path}"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    yield described(command)
    yield options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from sections(below, f"{path} {name}", context)


def write(app: Sphinx) -> None:
    """Write the folder ``commands``, before Sphinx looks for pages."""
    context = click.Context(main, info_name="composer")
    pages, rows = {}, []
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        if command is not None and not command.hidden:
            text = "\n\n".join(sections(command, f"composer {name}", context))
            pages[f"{name}.md"] = f"{text}\n"
            short = plain(command.get_short_help_str(200))
            rows.append(f"| [`composer {name}`]({name}.md) | {short} |")
    listed = "\n".join(["| command | what it does |", "|---|---|", *rows])
    toctree = "\n".join(["```{toctree}", ":hidden:", *(page[:-3] for page in pages), "```"])
    pages["index.md"] = f"# The command line\n\n{described(main)}\n\n{listed}\n\n{toctree}\n"
    write_folder(Path(app.srcdir) / FOLDER, pages)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
