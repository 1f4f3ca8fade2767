"""The options that tables of ``composer evaluate`` share."""

from __future__ import annotations

import click

from composer.commands.paths import NamedPath
from composer_plugins.backends.placement import DTYPES

DTYPE = click.option(
    "--dtype",
    type=click.Choice([*DTYPES]),
    default="float32",
    show_default=True,
    help="Dtype of the network.",
)
AS_JSON = click.option("--json", "as_json", type=NamedPath(), help="Save the table in this file.")
