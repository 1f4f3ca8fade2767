"""``composer check``: prove the contracts of :mod:`composer.testing` for installed offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import click

from composer.commands.plugins import distribution_of
from composer.commands.table import echo_json, echo_table
from composer.errors import UnknownNameError
from composer.foreign import Foreign
from composer.hooks import hooked
from composer.markers import answers
from composer.offers import Offer, required
from composer.plugin import declared
from composer.registry import Registry, installed
from composer.testing import Check, decomposition_checks, stack_checks, transform_checks


@dataclass(frozen=True)
class _Row:
    """One line of the table."""

    name: str
    check: str
    status: str
    why: str = ""


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", is_flag=True, help="Also show checks that passed.")
def check(name: str, as_json: bool, verbose: bool) -> None:
    """Prove a registered transform, decomposition or plugin, or all of a package.

    NAME is a registered name, a distribution or an entry point. A transform must be orthogonal. A
    decomposition must sum to the identity. A plugin that answers noise_estimate must keep the law
    of composition. The exit status is 1 if a check fails.
    """
    try:
        rows = list(_rows(installed(), name))
    except UnknownNameError as error:
        raise click.ClickException(str(error)) from error
    failed = sum(row.status == "failed" for row in rows)
    if as_json:
        echo_json({"name": name, "failed": failed, "checks": [vars(row) for row in rows]})
    else:
        _echo(rows, verbose)
    if failed:
        raise SystemExit(1)


def _echo(rows: list[_Row], verbose: bool) -> None:
    shown = [row for row in rows if verbose or row.status != "passed"]
    if shown:
        echo_table(
            ("name", "check", "", "why"), [(r.name, r.check, r.status, r.why) for r in shown]
        )
        click.echo()
    names = dict.fromkeys(row.name for row in rows)
    counts = {s: sum(r.status == s for r in rows) for s in ("passed", "failed", "skipped")}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    click.echo(f"{summary}, of {', '.join(names)}")


def _rows(registry: Registry, name: str) -> Iterator[_Row]:
    offers = [o for o in registry.offers.values() if o.kind in _CONTRACTS]
    packages = [p for p in registry.packages if name in (p.name, p.distribution)]
    distributions = {name, *(p.distribution for p in packages)}
    chosen = [o for o in offers if o.name == name]
    if not chosen:
        chosen = [o for o in offers if distribution_of(o) in distributions]
        yield from (_Row(p.name, "loads", "failed", p.error) for p in packages if p.error)
    if not chosen and not packages:
        if other := next((o for o in registry.offers.values() if o.name == name), None):
            raise click.ClickException(
                f"NAME must be a transform, decomposition or plugin, got the {other.kind} {name}. "
                "Check a backend with composer.testing.check_backend."
            )
        known = {o.name for o in offers} | {distribution_of(o) for o in offers}
        known |= {n for p in registry.packages for n in (p.name, p.distribution)}
        raise UnknownNameError("transform, decomposition, plugin or package", name, known)
    for offer in chosen:
        yield from _rows_of(offer)


def _rows_of(offer: Offer) -> Iterator[_Row]:
    checks: list[Check] = []
    unexamined = ""
    with Foreign() as making:
        needed = required(offer.factory)
        if needed and offer.example is None:
            unexamined = (
                f"needs {', '.join(needed)}; check it in a test, or offer it with an example"
            )
        else:
            made = (offer.example or offer.factory)()
            checks = _CONTRACTS[offer.kind](made)
            unexamined = "" if checks else _why_no_contract(made)
    if making.error:
        yield _Row(offer.name, "is made", "failed", making.error)
    elif unexamined:
        yield _Row(offer.name, "all", "skipped", unexamined)
    for one in checks:
        yield _row_of(offer.name, one)


def _row_of(name: str, check: Check) -> _Row:
    row = _Row(name, check.name, "failed")
    with Foreign() as running:
        outcome = check.outcome()
        why = "; ".join(part for part in (outcome.why, outcome.advice) if part)
        row = _Row(name, check.name, outcome.status, why)
    return replace(row, why=running.error) if running.error else row


def _why_no_contract(thing: object) -> str:
    if not declared(thing, "obeys_law"):
        return "no contract: it declares that it leaves the law of composition"
    return "no contract: it answers no noise_estimate"


def _plugin_checks(plugin: Any) -> list[Check]:
    """The checks of a plugin's parts, and of a stack with this plugin alone."""
    hooked([plugin])  # raises if it answers no hook, or one that does not exist
    parts = declared(plugin, "parts")
    # Parts may be a decomposition object, which has a name.
    owner = parts if hasattr(parts, "parts") else plugin
    checks = decomposition_checks(owner) if parts else []
    if answers(plugin, "noise_estimate") and declared(plugin, "obeys_law"):
        checks += stack_checks([plugin])
    return checks


_CONTRACTS: Mapping[str, Callable[[Any], list[Check]]] = {
    "transform": transform_checks,
    "decomposition": decomposition_checks,
    "plugin": _plugin_checks,
}
"""The checks of each kind of offer; they raise a TypeError for an object of another kind."""
