"""``composer evaluate samples``: quality of digits by solver, steps and guidance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from composer.commands.errors import one_sentence
from composer.commands.paths import NamedPath
from composer.writing import require_folder, require_writable
from composer_lab.cli.evaluate_options import AS_JSON, DTYPE
from composer_lab.evaluation.quality import (
    quality,
    reference_of,
    shipped_reference,
)
from composer_lab.evaluation.samples import (
    AUTOGUIDANCE,
    GUIDANCES,
    SHIPPED,
    SOLVERS,
    Model,
    Setting,
    load_model,
    sampled,
    with_weaker,
)
from composer_lab.evaluation.table import KeptTable, Row, recipe_of
from composer_plugins.backends.mnist.judge import judge_hash, load_judge

NAMES = "model", "solver", "guidance"
COLUMNS = (
    *("steps", "scale", "rows"),
    *("frechet", "precision", "recall", "coverage", "right", "worst"),
)


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    default=[*SHIPPED],
    show_default=True,
    help="A shipped backend, or the folder of a trained model.",
)
@click.option(
    "--weak",
    help="Name or folder of a weaker model, for --guidance autoguidance.",
)
@click.option(
    "--solver",
    "solvers",
    multiple=True,
    type=click.Choice([*SOLVERS]),
    default=["euler", "dpm_pp", "spaced ddpm"],
    show_default=True,
)
@click.option(
    "--steps",
    multiple=True,
    type=click.IntRange(1),
    default=[2, 4, 5, 8, 10, 20, 50],
    show_default=True,
)
@click.option(
    "--guidance",
    "guidances",
    multiple=True,
    type=click.Choice([name for name in GUIDANCES if name != "none"]),
    default=["cfg"],
    show_default=True,
)
@click.option("--scale", "scales", multiple=True, default=[1.0, 2.0, 5.0], show_default=True)
@DTYPE
@click.option("--count", type=click.IntRange(100), default=500, show_default=True)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--data",
    type=NamedPath(),
    envvar="COMPOSER_MNIST",
    help="Folder of the four idx files; without it, no precision, recall and coverage.",
)
@click.option(
    "--keep",
    type=NamedPath(),
    help="Save the samples in this folder and reuse them.",
)
@AS_JSON
@one_sentence
def samples(
    models: tuple[str, ...],
    weak: str | None,
    solvers: tuple[str, ...],
    steps: tuple[int, ...],
    guidances: tuple[str, ...],
    scales: tuple[float, ...],
    dtype: str,
    count: int,
    first_seed: int,
    data: Path | None,
    keep: Path | None,
    as_json: Path | None,
) -> None:
    """Compare every solver, number of steps, guidance and scale, one row each; scale 1 is unguided.

    frechet: distance from the 10,000 test digits in the judge's features, which falls with --count;
    the first row shows that of as many train digits. precision, recall, coverage: overlap of
    samples and test digits. right: share read as the conditioning digit; worst: the share of the
    worst digit (all ten are in --json); models trained without classes have neither. rows: network
    rows per image. cfg++ takes scale / 12.5.

    Each row is saved to --json when it is done, and rows found there are not computed again.
    Samples in --keep are reused, also with a larger --count.
    """
    table = KeptTable.read(as_json)
    if keep is not None:
        require_folder(keep)
        require_writable(keep / "samples")
    if first_seed + count > 2**32:
        raise ValueError(
            f"--first-seed must be at most {2**32 - count} for {count} seeds, got {first_seed}."
        )
    if weak is None and AUTOGUIDANCE in guidances:
        raise ValueError("--guidance autoguidance needs a weaker model. Name it by --weak.")
    settings = list(dict.fromkeys(_settings(solvers, steps, guidances, scales)))
    lines = [line for name in models for line in lines_of(name, dtype, weak, settings)]
    for model, setting in lines:
        setting.require_possible(model)  # before sampling
    judge = load_judge()
    reference = shipped_reference() if data is None else reference_of(judge, (count,), data)
    floor = reference.floors.get(count)
    if floor is None:
        click.echo(
            f"the package has no floor for {count} samples, only for "
            f"{', '.join(map(str, reference.floors))}; --data measures it"
        )
    click.echo(f"{count} samples per row, {dtype}, judge {judge_hash(judge)[:12]}")
    click.echo(" ".join((*(f"{name:12}" for name in NAMES), *(f"{n:>9}" for n in COLUMNS))))
    if floor is not None:
        click.echo(_line({"model": "train digits", **asdict(floor)}))
    of_all = {"count": count, "first_seed": first_seed, "judge": judge_hash(judge)}
    for model, setting in lines:
        key = {**_key(model, setting), **of_all}
        row = table.find(key, needed=() if data is None else ["recall"])
        if row is None:
            made = sampled(model, setting, range(first_seed, first_seed + count), keep)
            found = asdict(quality(judge, made.images, made.digits, reference))
            row = {**key, "rows": made.rows / count, **found, "floor": floor and floor.frechet}
            table.add(row)
        click.echo(_line(row))


def _settings(
    solvers: tuple[str, ...],
    steps: tuple[int, ...],
    guidances: tuple[str, ...],
    scales: tuple[float, ...],
) -> Iterator[Setting]:
    for solver, count, scale, guidance in itertools.product(solvers, steps, scales, guidances):
        yield Setting(solver, count, scale, "none" if scale == 1 else guidance)


def lines_of(
    name: str, dtype: str, weak: str | None, settings: Sequence[Setting]
) -> list[tuple[Model, Setting]]:
    """Each setting with the model, or with the model and the weaker one if it needs both."""
    alone = both = load_model(name, dtype)
    if weak is not None and any(setting.guidance == AUTOGUIDANCE for setting in settings):
        both = with_weaker(alone, load_model(weak, dtype))
    return [(both if s.guidance == AUTOGUIDANCE else alone, s) for s in settings]


def _key(model: Model, setting: Setting) -> Row:
    """The row's cache key, beside the settings of the whole table."""
    return {
        "model": model.name,
        **asdict(setting),
        "weights": model.weights,
        "dtype": model.dtype,
        "recipe": recipe_of(setting.sampler(model.backend)),
    }


def _line(row: Row) -> str:
    shown = dict(row)
    if accuracy := row.get("accuracy"):  # a model without classes has none
        shown |= {"right": sum(accuracy) / len(accuracy), "worst": min(accuracy)}
    names = (f"{shown.get(name, ''):12}" for name in NAMES)
    return " ".join((*names, *(f"{_figure(shown.get(name)):>9}" for name in COLUMNS)))


def _figure(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
