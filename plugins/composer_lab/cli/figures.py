"""``composer figures``: the pictures of every experiment."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from composer.commands.errors import one_sentence
from composer.commands.paths import NamedPath
from composer.writing import make_folder
from composer_lab.figures import (
    FIGURES,
    OF_RUNS,
    Curves,
    Figure,
    Lab,
    Run,
    Sheet,
    about,
    chosen,
    stand_ins,
)


def print_list(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the names of the figures with one line on each."""
    if not wanted:
        return
    for name, make in FIGURES.items():
        click.echo(f"{name:22}{about(make)}")
    click.echo("with --run, figures of a training:")
    for of_kind in OF_RUNS.values():
        for name, make in of_kind.items():
            click.echo(f"{name:22}{about(make)}")
    context.exit()


@click.command()
@click.argument("out", type=NamedPath())
@click.option("--only", "names", multiple=True, help="Name of a figure; may be given repeatedly.")
@click.option(
    "--run",
    "folders",
    multiple=True,
    type=NamedPath(),
    help="Folder that `composer train` wrote: draw its losses and epochs, and use its network "
    "instead of the shipped one; may be given repeatedly.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 100),
    default=0,
    show_default=True,
    help="Seed of the noise.",
)
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=print_list,
    help="Print the names of the figures and stop.",
)  # fmt: skip
@one_sentence
def figures(out: Path, names: tuple[str, ...], folders: tuple[Path, ...], seed: int) -> None:
    """Draw the figures of every experiment into the folder OUT.

    They use the models and the test digits in the package, or the models of --run. Nothing is
    downloaded. The same seed gives the same pictures.
    """
    runs = [Run.read(folder) for folder in folders]
    makes, lab = chosen(names, runs), Lab.of(runs, seed)
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("figures need matplotlib. Run pip install 'diffusion-composer[train]'.")
    make_folder(out)
    stands, note = stand_ins(runs), of_whom(runs)
    of_runs = {"loss"}.union(*OF_RUNS.values())
    for run in runs:
        place = run.place if stands.get(run.place or "") is run else None
        role = "shown by its losses and epochs" if place is None else f"in place of {place}"
        click.echo(f"{run.name}: {role}")
    for name, make in makes.items():
        began = time.perf_counter()
        figure = noted(make(lab), "" if name in of_runs else note)
        file = out / f"{name}{figure.suffix}"
        figure.write(file)
        click.echo(f"{file} ({time.perf_counter() - began:.0f} s)")


def of_whom(runs: Sequence[Run]) -> str:
    """A note on the networks that drew a figure."""
    if not runs:
        return ""
    if not (stands := stand_ins(runs)):
        return "Drawn by the networks in the package."
    who = " and ".join(f"{run.name} in place of {place}" for place, run in stands.items())
    return f"With {who}; the caption describes the results of the networks in the package."


def noted(figure: Figure, note: str) -> Figure:
    """A figure with one more sentence in its caption; films have no caption."""
    if not note or not isinstance(figure, Sheet | Curves):
        return figure
    return replace(figure, caption=f"{figure.caption} {note}".strip())
