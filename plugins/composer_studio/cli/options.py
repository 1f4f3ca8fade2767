"""The options that commands which sample share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from composer.commands.paths import NamedPath
from composer.limits import MAX_STEPS

F = TypeVar("F", bound=Callable[..., Any])
_DIRECTORY = NamedPath()
SEEDS = click.option("--seeds", help="Seeds, one image each: 7, 0:64 or [1, 5].")
SETTINGS = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a setting, such as plugins.cfg.scale=3.",
)
OUT = click.option("--out", type=_DIRECTORY, help="Folder for the pictures; . is the current one.")
TRUST = click.option(
    "--trust", multiple=True, help="Let the recipe set this option of its backend, such as model."
)
BATCH = click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    default=16,
    show_default=True,
    help="Images at a time.",
)
STEPS = click.option(
    "--steps", type=click.IntRange(1, MAX_STEPS), help="Steps from noise to image."
)
_OUTPUTS = (
    click.option("--best", type=click.IntRange(1), help="Keep the N images of the highest score."),
    click.option("--score", help="Score for --best, such as reads_as."),
    click.option("--animate", type=click.Choice(["gif", "mp4"]), help="Write a film of the views."),
    click.option("--sheet/--no-sheet", default=None, help="Write all images into sheet.png."),
    click.option("--size", type=click.IntRange(1, 4096), help="Pixels of the longer side."),
    STEPS,
)


def sampling_options(command: F) -> F:
    """--seeds, --set, --out and what is written."""
    for option in reversed((SEEDS, SETTINGS, OUT, *_OUTPUTS, BATCH, TRUST)):
        command = option(command)
    return command


def changes_from(
    settings: tuple[str, ...], seeds: str | None, steps: int | None, **output: Any
) -> dict[str, Any]:
    """{path in a recipe: value} of the options that were given.

    Raises:
        WrittenError: a setting has no "=".
    """
    from composer_studio.written.reading import changes_of, toml_value  # noqa: PLC0415

    changes = changes_of(settings)
    if seeds is not None:
        changes["seeds"] = toml_value(seeds) if seeds.startswith("[") else seeds
    if steps is not None:
        changes["steps"] = steps
    for name, value in output.items():
        if value is not None:
            changes[f"output.{name}"] = score_table(value) if name == "score" else value
    return changes


def score_table(score: str) -> Any:
    """A score by name, or as a table of TOML."""
    return table_or_name(score, "--score")


def table_or_name(text: str, option: str) -> Any:
    """A registered thing by its name, or as a table of TOML.

    Raises:
        WrittenError: it begins like a table and is none.
    """
    from composer_studio.written import WrittenError  # noqa: PLC0415  # loads pydantic
    from composer_studio.written.reading import toml_value  # noqa: PLC0415

    if not text.startswith("{"):
        return text
    value = toml_value(text)
    if isinstance(value, str):
        raise WrittenError([f'{option} must be a name or a table {{use = "..."}}, got {text!r}.'])
    return value
