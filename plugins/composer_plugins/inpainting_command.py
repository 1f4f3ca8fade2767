"""``composer evaluate inpainting``: what each method keeps, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from composer import load_backend
from composer_plugins.backends.mnist.data import load_mnist, sample_digits, to_model
from composer_plugins.backends.mnist.inpainting import METHODS, Inpainted, inpainted
from composer_plugins.backends.mnist.judge import load_judge
from composer_plugins.commands import one_sentence
from composer_plugins.writing import write_atomically

COLUMNS = "kept", "known_error", "unknown_error", "rows"
CONDITIONS = {"the digit": True, "nothing": False}


@click.command()
@click.option("--count", type=click.IntRange(1), default=500, show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the four idx files.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice([*METHODS]),
    default=[*METHODS],
    help="One of several; all by default.",
)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True)
@click.option("--backend", default="mnist", show_default=True)
@click.option("--json", "as_json", type=click.Path(path_type=Path), help="Also write the table.")
@one_sentence
def inpainting(
    count: int,
    data: Path | None,
    methods: tuple[str, ...],
    steps: int,
    backend: str,
    as_json: Path | None,
) -> None:
    """Test digits without their lower half, made whole in several ways.

    kept: share that the judge reads as the digit it was, the model having been told the digit, or
    nothing. known_error and unknown_error: mean distance from the digit (the range is 2) where it
    was kept, and where it was made. rows: network rows an image. Without --data the digits are
    those shipped in the package, in turn of each kind, of which there may be fewer than --count.
    """
    if as_json is not None and not as_json.absolute().parent.is_dir():
        raise ValueError(f"{as_json.parent} is no folder; make it first")
    digits, labels = _digits(count, data)
    model, judge = load_backend(backend), load_judge()
    right = float((judge.classify(digits) == labels).float().mean())
    click.echo(f"{len(digits)} test digits, {steps} steps; the judge reads {right:.3f} of them")
    rows = []
    for told, conditional in CONDITIONS.items():
        click.echo(f"the model is told {told}")
        click.echo(f"  {'method':12}" + "".join(f"{name:>15}" for name in COLUMNS))
        for method in methods:
            found = inpainted(model, judge, digits, labels, method, conditional, steps)
            rows.append({"told": told, **_row(found)})
            click.echo(f"  {method:12}" + "".join(_figures(rows[-1])))
    if as_json is not None:
        write_atomically(as_json, lambda path: path.write_text(json.dumps(rows, indent=1)))


def _digits(count: int, data: Path | None) -> tuple[Tensor, Tensor]:
    if data is not None:
        images, labels = load_mnist("test", data)
        return to_model(images[:count]), labels[:count]
    digits, labels = sample_digits()
    kinds = labels.argsort(stable=True).reshape(10, -1).T.flatten()[:count]
    return digits[kinds], labels[kinds]


def _row(found: Inpainted) -> dict[str, Any]:
    return {"method": found.method, **{name: getattr(found, name) for name in COLUMNS}}


def _figures(row: dict[str, Any]) -> Iterator[str]:
    yield from (f"{row[name]:15.3f}" for name in COLUMNS[:-1])
    yield f"{row['rows']:15g}"
