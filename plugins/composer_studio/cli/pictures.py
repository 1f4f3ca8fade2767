"""``composer show`` and ``composer replay``: what a picture says of itself, and the same again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from composer.commands.paths import NamedPath
from composer_studio.cli.errors import in_one_line
from composer_studio.cli.options import TRUST

_FILE = NamedPath()
_LONG = 300
_NAMED = ("plugin", "transform", "decomposition", "score", "loss", "solver", "name", "unregistered")


@click.command()
@click.argument("picture", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@in_one_line
def show(picture: Path, as_json: bool) -> None:
    """Say how a PNG or WebP was made: model, plugins, seed, version, hash of the weights."""
    from composer_studio.remembered import read_memory  # noqa: PLC0415

    memory = read_memory(picture)
    if as_json:
        said = {"composer": memory.version, "seed": memory.seed, "recipe": memory.recipe}
        click.echo(json.dumps(said, indent=2))
        return
    rows = {
        "picture": str(picture),
        "seed": memory.seed,
        "composer": memory.version,
        "weights": memory.weights or "unknown",
        **{name: memory.recipe.get(name) for name in ("backend", "solver", "num_inference_steps")},
    }
    call = memory.recipe.get("call")
    condition = call.get("condition") if isinstance(call, dict) else None
    plugins = memory.recipe.get("plugins")
    for name, value in [*rows.items(), ("condition", condition)]:
        click.echo(f"{name.replace('num_inference_', ''):10} {_words(value)}")
    for plugin in plugins if isinstance(plugins, list) else []:
        click.echo(f"{'plugin':10} {_words(plugin)}")


@click.command()
@click.argument("picture", type=_FILE)
@click.option("--out", type=_FILE, help="The new picture; by default NAME-again.png beside it.")
@TRUST
@in_one_line
def replay(picture: Path, out: Path | None, trust: tuple[str, ...]) -> None:
    """Make a picture again from what it carries, and compare.

    It says whether the version or the weights have changed. The exit status is 1 if the new picture
    differs by more than rounding.
    """
    from composer.writing import require_writable  # noqa: PLC0415
    from composer_studio.folders import made  # noqa: PLC0415
    from composer_studio.remembered import read_memory  # noqa: PLC0415
    from composer_studio.replaying import AGAIN, replayed  # noqa: PLC0415  # loads torch

    target = out or picture.with_name(f"{picture.stem}{AGAIN}.png")
    read_memory(picture)
    with made(target.parent):
        require_writable(target)
        again = replayed(picture, trust)
        again.result.save(target, again.size)
    for remark in again.remarks:
        click.echo(remark)
    click.echo(f"{target}: {again.verdict}")
    if not again.same:
        raise click.exceptions.Exit(1)


def _words(value: Any) -> str:
    """A part of a recipe on one line; what registered things are, by name and options."""
    text = " ".join("".join(c if c.isprintable() else "?" for c in _plain(value)).split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def _plain(value: Any, depth: int = 0) -> str:
    if depth > 8:
        return "..."
    if isinstance(value, list):
        return f"[{', '.join(_plain(one, depth + 1) for one in value[:8])}]"
    if not isinstance(value, dict):
        return str(value)
    for picture in ("image", "tensor", "array"):
        if picture in value:
            return f"<{picture}>"
    if isinstance(value.get("pairs"), list):
        pairs = [p for p in value["pairs"][:8] if isinstance(p, list) and len(p) == 2]
        listed = ", ".join(f"{_plain(k, depth + 1)}: {_plain(v, depth + 1)}" for k, v in pairs)
        return f"{{{listed}}}"
    options = value.get("options")
    named = next((value[kind] for kind in _NAMED if kind in value), None)
    if named is None:
        return ", ".join(f"{k}: {_plain(v, depth + 1)}" for k, v in list(value.items())[:8])
    inside = options.items() if isinstance(options, dict) else ()
    listed = ", ".join(f"{k}={_plain(v, depth + 1)}" for k, v in inside if v is not None)
    return f"{named}({listed})" if listed else str(named)
