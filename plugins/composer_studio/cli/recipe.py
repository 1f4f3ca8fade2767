"""``composer recipe``: check one, show one, and the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from composer.commands.errors import BadInput
from composer.commands.paths import NamedPath
from composer.writing import write_atomically
from composer_studio.cli.errors import in_one_line
from composer_studio.cli.options import SETTINGS, TRUST


@click.group()
def recipe() -> None:
    """Check and show recipes, which `composer sample` makes pictures of."""


@recipe.command()
@click.argument("file", type=NamedPath())
@SETTINGS
@TRUST
@in_one_line
def check(file: Path, settings: tuple[str, ...], trust: tuple[str, ...]) -> None:
    """Load the model of a recipe and check everything, without sampling.

    Each error is one line: its place, the nearest name, and the known options.
    """
    from composer_studio.runs import Run  # noqa: PLC0415  # loads torch
    from composer_studio.sampling import folder_of, score_of_output  # noqa: PLC0415
    from composer_studio.written import WrittenError, read_file  # noqa: PLC0415
    from composer_studio.written.reading import changes_of  # noqa: PLC0415

    try:
        script = read_file(file, changes_of(settings))
    except WrittenError as error:
        for problem in error.problems[:-1]:
            click.echo(f"Error: {problem}", err=True)
        raise BadInput(error.problems[-1]) from error
    score_of_output(script, folder_of(script))
    run = Run.of(script, trust)
    click.echo(f"{file}: {run.sampler!r}, {len(run.seeds)} seeds")


@recipe.command()
@click.argument("file", type=NamedPath())
@SETTINGS
@in_one_line
def show(file: Path, settings: tuple[str, ...]) -> None:
    """Print a recipe as the library has it, in JSON, which Sampler.from_recipe reads."""
    from composer_studio.written import library_recipe, read_file  # noqa: PLC0415
    from composer_studio.written.reading import changes_of  # noqa: PLC0415

    click.echo(json.dumps(library_recipe(read_file(file, changes_of(settings))), indent=2))


@recipe.command()
@click.option("--out", type=NamedPath(), help="A file, in place of the terminal.")
@in_one_line
def schema(out: Path | None) -> None:
    """Print the JSON Schema of recipes, from which editors complete.

    In TOML the first line `#:schema recipe.schema.json` names it to an editor.
    """
    from composer_studio.written import json_schema  # noqa: PLC0415

    text = json.dumps(json_schema(), indent=2)
    if out is None:
        click.echo(text)
    else:
        write_atomically(out, lambda unfinished: unfinished.write_text(f"{text}\n"))
