"""``composer evaluate``: figures of quality, by a judge that never guides or chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch

from composer import get_transform, load_backend
from composer.transforms import check_view
from composer_plugins.backends.mnist.evaluate import PAIRS, Anagrams, all_pairs
from composer_plugins.backends.mnist.judge import load_judge
from composer_plugins.commands import one_sentence
from composer_plugins.inpainting_command import inpainting
from composer_plugins.samples_command import samples
from composer_plugins.sheet import contact_sheet
from composer_plugins.transforms import Identity
from composer_plugins.writing import write_atomically

SHAPE = (1, 28, 28)
COLUMNS = "correct", "best", "aligned", "concealed"


@click.group()
def evaluate() -> None:
    """Measure the shipped models."""


evaluate.add_command(inpainting)
evaluate.add_command(samples)


@evaluate.command("anagrams")
@click.option(
    "--transform", "transforms", multiple=True, default=("rotate_180", "flip"), show_default=True
)
@click.option("--seeds", type=click.IntRange(1), default=64, show_default=True, help="A pair.")
@click.option(
    "--best-of", type=click.IntRange(1), default=8, show_default=True, help="Seeds to choose among."
)
@click.option("--backend", default="mnist", show_default=True)
@click.option("--json", "as_json", type=click.Path(path_type=Path), help="Also write the table.")
@click.option(
    "--gallery",
    type=click.Path(path_type=Path),
    help="Also write, for each transform, a picture of the best of all seeds by the chooser: "
    "GALLERY-TRANSFORM.png.",
)
@one_sentence
def anagrams(
    transforms: tuple[str, ...],
    seeds: int,
    best_of: int,
    backend: str,
    as_json: Path | None,
    gallery: Path | None,
) -> None:
    """All 55 pairs of digits, one read upright, the other through a transform.

    correct: share of samples that the judge reads as intended both ways. best: the same for the
    best of --best-of seeds as another network, the chooser, ranks them. aligned: mean probability
    of the worse reading. concealed: how well the two views tell the two digits apart.
    """
    if best_of > seeds:
        raise ValueError(f"--best-of {best_of} needs at least as many --seeds, got {seeds}")
    for transform in transforms:
        if isinstance(get_transform(transform), Identity):
            raise ValueError(f"--transform {transform}: one view cannot read as two digits")
    for file in (as_json, gallery):
        if file is not None and not file.absolute().parent.is_dir():
            raise ValueError(f"{file.parent} is no folder; make it first")
    model, judge = load_backend(backend), load_judge()
    if model.shape != SHAPE:
        raise ValueError(
            f"--backend {backend} makes images of {model.shape}, the judge reads digits"
        )
    for transform in transforms:
        check_view(get_transform(transform), model.shape, f"--transform {transform}")
    rows: list[dict[str, Any]] = []
    for transform in transforms:
        click.echo(f"{transform}, {seeds} seeds a pair")
        click.echo("  pair " + "".join(f"{name:>11}" for name in COLUMNS) + "  rows a sample")
        best = []
        for found in all_pairs(model, judge, transform, range(seeds)):
            rows.append(_row(transform, found, best_of))
            click.echo(_line(rows[-1]))
            best.append(found.x[found.chosen.argmax()])
        for line in _summary([row for row in rows if row["transform"] == transform]):
            click.echo(line)
        if gallery is not None:
            _write_gallery(transform, torch.stack(best), gallery)
    if as_json is not None:
        write_atomically(as_json, lambda path: path.write_text(json.dumps(rows, indent=1)))


def _row(transform: str, found: Anagrams, best_of: int) -> dict[str, Any]:
    upright, seen = found.views.values()
    return {
        "transform": transform,
        "pair": [upright, seen],
        "correct": float(found.correct.float().mean()),
        "best": found.best_of(best_of),
        "aligned": float(found.aligned.mean()),
        "concealed": float(found.concealed.mean()),
        "rows": found.rows,
    }


def _line(row: dict[str, Any]) -> str:
    upright, seen = row["pair"]
    figures = "".join(f"{row[name]:11.3f}" for name in COLUMNS)
    return f"  {upright}/{seen}  {figures}  {row['rows']:g}"


def _summary(rows: list[dict[str, Any]]) -> Iterator[str]:
    unequal = [row for row in rows if row["pair"][0] != row["pair"][1]]
    for name, chosen in ((f"all {len(rows)}", rows), (f"unequal {len(unequal)}", unequal)):
        means = "".join(f"{sum(r[c] for r in chosen) / len(chosen):11.3f}" for c in COLUMNS)
        yield f"  mean of {name}: {means}"


def _write_gallery(transform: str, best: torch.Tensor, gallery: Path) -> None:
    """The best image of each pair, above it as seen through the transform."""
    seen = get_transform(transform)(best)
    rows: dict[str, torch.Tensor] = {}
    for first in range(0, len(PAIRS), 11):
        part = slice(first, first + 11)
        names = ",".join(f"{a}/{b}" for a, b in PAIRS[part])
        rows[f"upright {names.split(',')[0]} to {names.split(',')[-1]}"] = best[part]
        rows[f"{transform} {names.split(',')[0]} to {names.split(',')[-1]}"] = seen[part]
    sheet = contact_sheet(rows, scale=2)
    file = gallery.with_name(f"{gallery.stem}-{transform}.png")
    write_atomically(file, lambda path: sheet.save(path, format="PNG"))
    click.echo(f"  wrote {file}")
