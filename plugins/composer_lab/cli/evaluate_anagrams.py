"""``composer evaluate anagrams``: pairs of digits that judges read in both views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import torch

from composer import get_transform
from composer.authoring import check_view
from composer.commands.errors import one_sentence
from composer.commands.paths import NamedPath
from composer.contact_sheet import contact_sheet
from composer.writing import require_file, write_atomically
from composer_lab.cli.evaluate_options import AS_JSON, DTYPE
from composer_lab.evaluation.anagrams import (
    METHODS,
    PAIRS,
    Anagrams,
    anagram_sampler,
    standard_error,
)
from composer_lab.evaluation.anagrams import anagrams as judged
from composer_lab.evaluation.samples import Model, load_model
from composer_lab.evaluation.table import KeptTable, Row, digest, recipe_of
from composer_plugins.backends.mnist.readers import CHOOSER, JUDGES, load_judges, reader_hash
from composer_plugins.transforms import Identity

COLUMNS = "correct", "lowest", "best", "any", "aligned", "concealed", "specks"


@click.command()
@click.option(
    "--transform", "transforms", multiple=True, default=("rotate_180", "flip"), show_default=True
)
@click.option("--seeds", type=click.IntRange(1), default=64, show_default=True, help="A pair.")
@click.option(
    "--best-of", type=click.IntRange(1), default=8, show_default=True, help="Seeds to choose among."
)
@click.option(
    "--model",
    "--backend",
    "name",
    default="mnist",
    show_default=True,
    help="A backend of digits, or the folder of a trained model.",
)
@click.option(
    "--method",
    type=click.Choice([*METHODS]),
    default="best",
    show_default=True,
    help="best: of five candidates in 4 steps, steered. chosen: of five, not steered. plain: one "
    "Anagram in 20. The others are LatentAnagram in 20, for models of latents.",
)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True)
@DTYPE
@AS_JSON
@click.option(
    "--gallery",
    type=NamedPath(),
    help="Also write, for each transform, a picture of the best of all seeds by the chooser: "
    "GALLERY-TRANSFORM.png. This samples all pairs, those in --json too.",
)
@one_sentence
def anagrams(
    transforms: tuple[str, ...],
    seeds: int,
    best_of: int,
    name: str,
    method: str,
    first_seed: int,
    dtype: str,
    as_json: Path | None,
    gallery: Path | None,
) -> None:
    """All 55 pairs of digits, one read upright, the other through a transform.

    Three judges of unlike architectures read the samples; another network steers and chooses.

    correct: share of samples read as intended in both views, the mean of the judges. lowest: the
    same by the judge that reads fewest. best: the same as correct for the best of --best-of seeds,
    ranked by the chooser. any: share of groups of --best-of seeds with at least one read as
    intended. aligned: mean probability of the worse reading. concealed: how surely the two views
    distinguish the two digits. specks: bits of ink beside the digits, per sample. cost: rows per
    sample, with the time outside the model counted as rows. The standard error is that of new seeds
    for the same pairs.

    Each row is saved to --json when it is done, and rows found there are not computed again.
    """
    table = KeptTable.read(as_json)
    _require_useful(transforms, seeds, best_of, gallery)
    model, judges = load_model(name, dtype), load_judges()
    model.require_classes("anagrams")
    of_all = {"seeds": seeds, "first_seed": first_seed, "best_of": best_of, **_readers()}
    for transform in transforms:
        check_view(get_transform(transform), model.backend, f"--transform {transform}")
    for transform in transforms:
        click.echo(f"{transform}, {seeds} seeds per pair")
        click.echo("  pair " + "".join(f"{column:>11}" for column in COLUMNS) + "  rows  cost")
        rows: list[Row] = []
        best = []
        for upright, seen in PAIRS:
            views = {"identity": upright, transform: seen}
            key = {**_key(model, method, transform, views), **of_all}
            row = None if gallery is not None else table.find(key)
            if row is None:
                stack, steps = METHODS[method]
                each = range(first_seed, first_seed + seeds)
                found = judged(model.backend, judges, views, each, stack(views), None, steps)
                best.append(found.x[found.chosen.argmax()])
                row = {**key, **_figures(found, best_of)}
                if table.find(key) is None:
                    table.add(row)
            rows.append(row)
            click.echo(_line(row))
        for line in _summary(rows, seeds):
            click.echo(line)
        if gallery is not None:
            _write_gallery(transform, torch.stack(best), gallery)


def _require_useful(
    transforms: tuple[str, ...], seeds: int, best_of: int, gallery: Path | None
) -> None:
    if best_of > seeds:
        raise ValueError(f"--seeds must be at least the {best_of} of --best-of, got {seeds}.")
    for transform in transforms:
        if isinstance(get_transform(transform), Identity):
            raise ValueError(
                f"--transform must be another view than the identity, got {transform}."
            )
        if gallery is not None:
            require_file(_picture(gallery, transform))
    if gallery is not None and not gallery.absolute().parent.is_dir():
        raise ValueError(f"{gallery.parent} must be a folder. Make it first.")


def _key(model: Model, method: str, transform: str, views: dict[str, int]) -> Row:
    """The row's cache key, beside the settings of the whole table."""
    stack, steps = METHODS[method]
    sampler = anagram_sampler(model.backend, views, stack(views), None, steps)
    return {
        "transform": transform,
        "pair": [*views.values()],
        "model": model.name,
        "weights": model.weights,
        "dtype": model.dtype,
        "recipe": digest(recipe_of(sampler)),
    }


def _readers() -> Row:
    """The hashes of the judges and of the chooser."""
    return {
        "judges": {name: reader_hash(name) for name in JUDGES},
        "chooser": reader_hash(CHOOSER),
    }


def _figures(found: Anagrams, best_of: int) -> Row:
    shares = found.correct.float().mean(1).tolist()
    return {
        "correct": sum(shares) / len(shares),
        "lowest": min(shares),
        "by judge": dict(zip(JUDGES, shares, strict=True)),
        "best": found.best_of(best_of),
        "any": found.any_of(best_of),
        "aligned": float(found.aligned.mean()),
        "concealed": float(found.concealed.mean()),
        "specks": float(found.specks.float().mean()),
        "rows": found.rows,
        "cost": found.cost,
    }


def _line(row: Row) -> str:
    upright, seen = row["pair"]
    figures = "".join(f"{row[name]:11.3f}" for name in COLUMNS)
    return f"  {upright}/{seen}  {figures}  {row['rows']:g}  {row['cost']:.1f}"


def _summary(rows: list[Row], seeds: int) -> Iterator[str]:
    unequal = [row for row in rows if row["pair"][0] != row["pair"][1]]
    for name, chosen in ((f"all {len(rows)}", rows), (f"unequal {len(unequal)}", unequal)):
        means = "".join(f"{sum(r[c] for r in chosen) / len(chosen):11.3f}" for c in COLUMNS)
        yield f"  mean of {name}: {means}"
        each = {judge: [row["by judge"][judge] for row in chosen] for judge in JUDGES}
        read = ", ".join(f"{name} {sum(of) / len(of):.3f}" for name, of in each.items())
        least = min(chosen, key=lambda row: float(row["correct"]))
        upright, seen = least["pair"]
        yield f"    {read}; lowest pair {upright}/{seen} {least['correct']:.3f}"
        if (error := standard_error([row["correct"] for row in chosen], seeds)) is not None:
            yield f"    standard error of correct: {error:.4f}"


def _picture(gallery: Path, transform: str) -> Path:
    return gallery.with_name(f"{gallery.stem}-{transform}.png")


def _write_gallery(transform: str, best: torch.Tensor, gallery: Path) -> None:
    """Write the best image of each pair, upright and through the transform."""
    seen = get_transform(transform)(best)
    rows: dict[str, torch.Tensor] = {}
    for first in range(0, len(PAIRS), 11):
        part = slice(first, first + 11)
        names = ",".join(f"{a}/{b}" for a, b in PAIRS[part])
        rows[f"upright {names.split(',')[0]} to {names.split(',')[-1]}"] = best[part]
        rows[f"{transform} {names.split(',')[0]} to {names.split(',')[-1]}"] = seen[part]
    sheet = contact_sheet(rows, scale=2)
    file = _picture(gallery, transform)
    write_atomically(file, lambda path: sheet.save(path, format="PNG"))
    click.echo(f"  wrote {file}")
