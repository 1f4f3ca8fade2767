"""``composer evaluate inpainting``: the quality and the cost of each method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch import Tensor

from composer.commands.errors import one_sentence
from composer.commands.paths import NamedPath
from composer_lab.cli.evaluate_options import AS_JSON, DTYPE
from composer_lab.evaluation.inpainting import METHODS, inpainted, inpainter
from composer_lab.evaluation.samples import load_model
from composer_lab.evaluation.table import KeptTable, Row, digest, recipe_of
from composer_plugins.backends.mnist.data import load_mnist, sample_digits, to_model
from composer_plugins.backends.mnist.judge import judge_hash, load_judge

COLUMNS = "kept", "known_error", "unknown_error", "rows"
CONDITIONS = {"the digit": True, "nothing": False}


@click.command()
@click.option("--count", type=click.IntRange(1), default=500, show_default=True)
@click.option(
    "--data",
    type=NamedPath(),
    envvar="COMPOSER_MNIST",
    help="Folder of the four idx files.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice([*METHODS]),
    default=[*METHODS],
    help="Method to compare; all by default.",
)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--model",
    "name",
    default="mnist",
    show_default=True,
    help="A shipped backend, or the folder of a trained model.",
)
@DTYPE
@AS_JSON
@one_sentence
def inpainting(
    count: int,
    data: Path | None,
    methods: tuple[str, ...],
    steps: int,
    name: str,
    dtype: str,
    as_json: Path | None,
) -> None:
    """Repaint the lower half of test digits by several methods.

    kept: share that the judge reads as the original digit, with the digit as condition, or without
    one. known_error and unknown_error: mean distance from the original (the range is 2) in the
    known half, and in the repainted one. rows: network rows per image. Without --data the digits
    are those in the package, equally many of each kind, which may be fewer than --count.

    Each row is saved to --json when it is done, and rows found there are not computed again.
    """
    table = KeptTable.read(as_json)
    digits, labels = _digits(count, data)
    model, judge = load_model(name, dtype), load_judge()
    right = float((judge.classify(digits) == labels).float().mean())
    # Raise for impossible settings before sampling.
    blank = torch.full((1, 1, 28, 28), -1.0)
    recipes = {}
    for method in methods:
        try:
            recipes[method] = digest(recipe_of(inpainter(model.backend, method, blank, steps)))
        except ValueError as error:
            raise ValueError(f"--method {method} in --steps {steps}: {error}") from error
    click.echo(f"{len(digits)} test digits, {steps} steps, {dtype}")
    click.echo(f"the judge reads {right:.3f} of the digits as they are")
    of_all = {
        "model": name,
        "steps": steps,
        "count": len(digits),
        "digits": "shipped" if data is None else "test",
        "weights": model.weights,
        "dtype": dtype,
        "judge": judge_hash(judge),
    }
    for told, conditional in CONDITIONS.items():
        if conditional and not model.conditional:
            click.echo(f"{name} was trained without classes and takes no condition")
            continue
        click.echo(f"condition: {told}")
        click.echo(f"  {'method':12}" + "".join(f"{name:>15}" for name in COLUMNS))
        for method in methods:
            key = {"told": told, "method": method, "recipe": recipes[method], **of_all}
            row = table.find(key)
            if row is None:
                found = inpainted(model.backend, judge, digits, labels, method, conditional, steps)
                row = {**key, **{name: getattr(found, name) for name in COLUMNS}}
                table.add(row)
            click.echo(f"  {method:12}" + "".join(_figures(row)))


def _digits(count: int, data: Path | None) -> tuple[Tensor, Tensor]:
    if data is not None:
        images, labels = load_mnist("test", data)
        return to_model(images[:count]), labels[:count]
    digits, labels = sample_digits()
    kinds = labels.argsort(stable=True).reshape(10, -1).T.flatten()[:count]
    return digits[kinds], labels[kinds]


def _figures(row: Row) -> Iterator[str]:
    yield from (f"{row[name]:15.3f}" for name in COLUMNS[:-1])
    yield f"{row['rows']:15g}"
