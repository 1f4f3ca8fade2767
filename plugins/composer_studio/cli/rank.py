"""``composer rank``: choose among the pictures of a folder."""

from __future__ import annotations

from pathlib import Path

import click

from composer.commands.paths import NamedPath
from composer_studio.cli.errors import in_one_line
from composer_studio.cli.options import score_table

_DIRECTORY = NamedPath()


@click.command()
@click.argument("folder", type=_DIRECTORY)
@click.option("--score", required=True, help="A score's name, or a table {use = ..., ...}.")
@click.option(
    "--best", type=click.IntRange(1, 1000), default=16, show_default=True, help="How many to copy."
)
@click.option("--out", type=_DIRECTORY, help="Folder for the best; by default FOLDER-best.")
@in_one_line
def rank(folder: Path, score: str, best: int, out: Path | None) -> None:
    """Score the pictures of a folder and copy out the best.

    The scores become a column of FOLDER/metadata.jsonl. Pictures that `composer replay` wrote
    beside others, NAME-again.png, are left out. A score is a registered function of images:
    `reads_as` for digits, `clip_alignment` and `clip_concealment` for prompts, or your own by
    register.score. It takes what it needs, such as views, from the recipes of the pictures.
    """
    from composer_studio.ranking import SHEET, rank  # noqa: PLC0415  # loads torch
    from composer_studio.written.reading import coded_score  # noqa: PLC0415

    target = out or folder.with_name(f"{folder.resolve().name}-best")
    ranked = rank(folder, coded_score(score_table(score)), best, target)
    for one in ranked[:best]:
        click.echo(f"{one.score:10.4f}  {one.file}")
    click.echo(f"{len(ranked)} pictures scored; the best are in {target}")
    click.echo(f"Look at {target / SHEET}")
