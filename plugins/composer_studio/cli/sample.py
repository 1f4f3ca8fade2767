"""``composer sample``: a recipe to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composer.commands.paths import NamedPath
from composer_studio.cli.errors import in_one_line
from composer_studio.cli.options import changes_from, sampling_options

if TYPE_CHECKING:
    from composer.recipes import Trust
    from composer_studio.written import Script


@click.command()
@click.argument("recipe", type=NamedPath())
@sampling_options
@in_one_line
def sample(
    recipe: Path,
    settings: tuple[str, ...],
    seeds: str | None,
    steps: int | None,
    out: Path | None,
    batch: int,
    trust: tuple[str, ...],
    **output: Any,
) -> None:
    """Make the pictures of a recipe, a TOML or JSON file.

    Each PNG carries its recipe: `composer show` reads it, `composer replay` makes it again. While
    it runs, preview.png in the folder shows how far the images are.
    """
    from composer_studio.written import read_file  # noqa: PLC0415

    script = read_file(recipe, changes_from(settings, seeds, steps, **output))
    typed = output["score"] is not None
    make(script, out, trust, batch, typed=typed, scored=typed)


def make(
    script: Script, out: Path | None, trust: Trust, batch: int, *, typed: bool, scored: bool
) -> None:
    """Sample to files, and say what was written and what to do next.

    Args:
        typed: as for ``sample_to_files``.
        scored: whether --score was given.
    """
    from composer_studio.sampling import sample_to_files  # noqa: PLC0415  # loads torch

    if scored and script.written.output.best is None:
        raise click.UsageError("--score goes with --best. Add --best 4, or leave --score out.")
    made = sample_to_files(script, out, trust, batch, typed)
    for file, score in zip(made.pictures, made.scores, strict=False):
        click.echo(f"{score:10.4f}  {file}")
    count = len(made.pictures)
    click.echo(f"{count} {'picture' if count == 1 else 'pictures'} in {made.folder}")
    for file in made.others:
        click.echo(f"Look at {file}")
    if made.pictures:
        click.echo(f"To see how one was made: composer show {made.pictures[0]}")
