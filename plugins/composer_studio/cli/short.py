"""``composer anagram``, ``hybrid``, ``inpaint``, ``sdedit``: what people do most, on a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from composer.commands.paths import NamedPath
from composer_studio.cli.errors import in_one_line
from composer_studio.cli.options import changes_from, sampling_options
from composer_studio.cli.sample import make

F = TypeVar("F", bound=Callable[..., Any])
FIT = click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "stretch"]),
    default="crop",
    show_default=True,
    help="How a picture of another size becomes the model's.",
)
SHOWN_AT = 448
"""Pixels at which images of a few pixels are saved, so that one sees them."""
UPRIGHT = "identity"
ANAGRAM_STEPS, CANDIDATES, STEEP = 4, 5, 0.02
EARLY = {"scale": 3.0, "interval": [0.7, 1.0]}
"""Of anagrams of digits, as composer_lab.evaluation.anagrams has measured them."""


def model_options(command: F) -> F:
    """--backend, --model, --device and --scale."""
    options = (
        click.option("--backend", default="mnist", show_default=True, help="The kind of model."),
        click.option("--model", help="Folder, or model of the hub, for the backend."),
        click.option("--device", help="cpu, cuda, mps, or auto."),
        click.option("--scale", type=float, help="Of guidance: 4, or 3 for anagrams of digits."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("upright")
@click.argument("turned")
@click.option(
    "--view", default="rotate_180", show_default=True, help="Transform that turns the image."
)
@model_options
@sampling_options
@in_one_line
def anagram(upright: str, turned: str, view: str, **options: Any) -> None:
    """Make images that show one thing upright and another through a view.

    `composer anagram 6 9` makes digits. A classifier steers five candidates per seed to both
    readings, and the one that it reads best is kept. Other models take words, such as `composer
    anagram "a rabbit" "a duck" --backend deepfloyd --model FOLDER`.
    """
    from composer import installed  # noqa: PLC0415  # loads torch

    if view == UPRIGHT:
        raise click.BadParameter("it must turn the image, got identity.", param_hint="'--view'")
    installed().find("transform", view)
    views = {UPRIGHT: _condition(upright), view: _condition(turned)}
    plugins: dict[str, Any] = {"anagram": {"views": views}}
    digits = all(isinstance(digit, int) and digit < 10 for digit in views.values())
    if digits and options["backend"] in _DIGITS:
        plugins = {**_read_both_ways(views), **plugins, "cfg": dict(EARLY)}
        options["steps"] = options["steps"] or ANAGRAM_STEPS
    _sample("anagram", plugins, **options)


def _read_both_ways(views: dict[str, Any]) -> dict[str, Any]:
    """Plugins that steer candidates to both readings of digits, and keep the best of each seed."""
    score = {"use": "reads_as", "views": views}
    survivors = [[1.0, CANDIDATES], [0.0, 1]]
    return {
        "particles": {"score": score, "survivors": survivors},
        "climb": {"score": {**score, "of": "all", "shift": 0}, "steep": STEEP},
    }


@click.command()
@click.argument("far")
@click.argument("near")
@click.option(
    "--sigma",
    default=2.0,
    show_default=True,
    help="Pixels of the blur between far and near, for images of 64.",
)
@model_options
@sampling_options
@in_one_line
def hybrid(far: str, near: str, sigma: float, **options: Any) -> None:
    """Make images that show one thing from afar and another from nearby."""
    plugin = {"low": _condition(far), "high": _condition(near), "sigma": sigma}
    _sample("hybrid", {"hybrid": plugin}, **options)


@click.command()
@click.argument("photo", type=NamedPath())
@click.argument("mask", type=NamedPath())
@click.option("--condition", help="What to paint; the model chooses if it is left out.")
@FIT
@model_options
@sampling_options
@in_one_line
def inpaint(photo: Path, mask: Path, condition: str | None, fit: str, **options: Any) -> None:
    """Paint a photo anew where a mask is white, and keep the rest."""
    plugin = {"image": str(photo), "mask": str(mask), "fit": fit}
    _sample("inpaint", {"inpaint": plugin}, condition, **options)


@click.command()
@click.argument("photo", type=NamedPath())
@click.option("--condition", help="What to make of it; the model chooses if it is left out.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="How much changes.",
)
@FIT
@model_options
@sampling_options
@in_one_line
def sdedit(photo: Path, condition: str | None, strength: float, fit: str, **options: Any) -> None:
    """Make variations of a photo or a sketch."""
    plugin = {"image": str(photo), "strength": strength, "fit": fit}
    _sample("sdedit", {"sdedit": plugin}, condition, **options)


def _sample(
    name: str,
    plugins: dict[str, Any],
    condition: str | None = None,
    *,
    backend: str,
    model: str | None,
    device: str | None,
    scale: float | None,
    settings: tuple[str, ...],
    seeds: str | None,
    steps: int | None,
    out: Path | None,
    batch: int,
    trust: tuple[str, ...],
    **output: Any,
) -> None:
    """Sample a stack and the guidance around the model; what a user typed is trusted."""
    from composer_studio.written import read_table  # noqa: PLC0415

    placed = {"model": model, "device": device}
    used = {"use": backend, **{k: v for k, v in placed.items() if v is not None}}
    output["sheet"] = output["sheet"] is not False
    if output["size"] is None and backend in _SMALL:
        output["size"] = SHOWN_AT
    guidance = {"scale": 4.0, **plugins.get("cfg", {})}
    if scale is not None:
        guidance["scale"] = scale
    recipe = {
        "backend": used,
        "plugins": {**plugins, "cfg": guidance},
        "condition": None if condition is None else _condition(condition),
        "seeds": "0:4",
    }
    changes = changes_from(settings, seeds, steps, **output)
    script = read_table(recipe, f"composer {name}", changes=changes)
    # The user typed all of it.
    scored = output["score"] is not None
    make(script, out or Path(name), True, batch, typed=True, scored=scored)


_DIGITS = ("mnist", "mnist-ddpm")
_SMALL = (*_DIGITS, "nouns")


def _condition(word: str) -> Any:
    """A label as a number, all else as text."""
    return int(word) if word.isdecimal() and len(word) < 10 else word
