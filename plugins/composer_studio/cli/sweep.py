"""``composer sweep``: thousands of seeds, over values of settings."""

from __future__ import annotations

from pathlib import Path

import click

from composer.commands.paths import NamedPath
from composer_studio.cli.errors import in_one_line
from composer_studio.cli.options import BATCH, SEEDS, SETTINGS, STEPS, TRUST, changes_from

_PATH = NamedPath()


@click.command()
@click.argument("recipe", type=_PATH)
@SEEDS
@STEPS
@SETTINGS
@click.option(
    "--over",
    multiple=True,
    metavar="PATH=A,B",
    help="Values of a setting, such as plugins.cfg.scale=2,3,5.",
)
@click.option("--out", type=_PATH, required=True, help="Folder; the same command resumes there.")
@BATCH
@TRUST
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="local",
    help="Run on a Ray cluster, at this address or, without one, on this machine.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Ray's workers; by default one per GPU or CPU."
)
@in_one_line
def sweep(
    recipe: Path,
    seeds: str | None,
    steps: int | None,
    settings: tuple[str, ...],
    over: tuple[str, ...],
    out: Path,
    batch: int,
    trust: tuple[str, ...],
    address: str | None,
    workers: int | None,
) -> None:
    """Make pictures of many seeds, for every value of some settings.

    The folder is an imagefolder, which `datasets` opens, with one row per picture in
    metadata.jsonl. A sweep that is killed loses only its current batch; the same command continues
    it. `composer rank` chooses among the pictures.
    """
    from composer_studio.sweeps.on_ray import RayEngine  # noqa: PLC0415  # loads torch
    from composer_studio.sweeps.plan import plan_of  # noqa: PLC0415
    from composer_studio.sweeps.running import sweep  # noqa: PLC0415

    if workers is not None and address is None:
        raise click.UsageError("--workers goes with --ray. Add --ray, or leave it out.")
    engine = None if address is None else RayEngine(address, workers)
    plan = plan_of(recipe, changes_from(settings, seeds, steps), over)
    made = sweep(plan, out, batch, trust, engine)
    click.echo(f"{plan.images} pictures in {out}, {made} of them made now")
    click.echo(f"To choose: composer rank {out} --score NAME")
