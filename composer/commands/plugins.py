"""``composer plugins``: list installed packages' offers, and packages that failed to load."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import click

from composer.commands.table import echo_json, echo_table
from composer.foreign import Foreign
from composer.offers import Offer
from composer.plugin import hooks_of
from composer.registry import Registry, installed

_CORE = "diffusion-composer"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List the registered names, and the packages that failed to load."""
    registry = installed()
    offered = [_row_of(offer, registry) for offer in registry.offers.values()]
    offered.sort(key=lambda row: (row["kind"], row["name"]))
    failed = [
        {
            "entry_point": package.name,
            "distribution": package.distribution,
            "version": package.version,
            "error": package.error,
        }
        for package in registry.packages
        if package.error
    ]
    if as_json:
        echo_json({"offers": offered, "failed": failed})
        return
    _echo(offered, ("name", "kind", "distribution", "version", "description"))
    if failed:
        click.echo("\nFailed to load (the others work):\n")
        _echo(failed, ("entry_point", "distribution", "version", "error"))


def _row_of(offer: Offer, registry: Registry) -> dict[str, Any]:
    """The row of an offer."""
    versions = {package.distribution: package.version for package in registry.packages}
    hooks: frozenset[str] = frozenset()
    with Foreign():  # to read an attribute of a class may run its code
        hooks = hooks_of(offer.factory)
    distribution = distribution_of(offer)
    known = versions.get(distribution)
    return {
        "name": offer.name,
        "kind": offer.kind,
        "distribution": distribution,
        "version": known or (version(_CORE) if distribution == _CORE else "unknown"),
        "description": offer.description,
        "hooks": sorted(hooks),
    }


def distribution_of(offer: Offer) -> str:
    """The name of the distribution of an offer, without the core's remark."""
    return offer.package.removesuffix(" (core)")


def _echo(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    head = [column.replace("_", " ") for column in columns]
    echo_table(head, [[str(row[column]) for column in columns] for row in rows])
