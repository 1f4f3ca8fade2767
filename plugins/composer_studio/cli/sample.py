"""``composer sample``: a recipe to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composer_studio.cli.errors import in_one_line
from composer_studio.cli.options import changes_from, sampling_options

if TYPE_CHECKING:
    from composer_studio.sampling import Made


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
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
    from composer_studio.sampling import sample_to_files  # noqa: PLC0415  # loads torch
    from composer_studio.written import read_file  # noqa: PLC0415

    script = read_file(recipe, changes_from(settings, seeds, steps, **output))
    echo_made(sample_to_files(script, out, trust, batch, typed=output["score"] is not None))


def echo_made(made: Made) -> None:
    """Say what was written, and what to do next."""
    for file, score in zip(made.pictures, made.scores, strict=False):
        click.echo(f"{score:10.4f}  {file}")
    count = len(made.pictures)
    click.echo(f"{count} {'picture' if count == 1 else 'pictures'} in {made.folder}")
    for file in made.others:
        click.echo(f"Look at {file}")
    if made.pictures:
        click.echo(f"To see how one was made: composer show {made.pictures[0]}")
