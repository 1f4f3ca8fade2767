"""``composer web``: a page to play with."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from pathlib import Path

import click

from composer.commands.errors import BadInput
from composer_studio.cli.errors import in_one_line

AUTH = "COMPOSER_WEB_AUTH"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Other hosts need --auth.")
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True)
@click.option(
    "--auth",
    metavar="USER:PASSWORD",
    multiple=True,
    help=f"A visitor. Safer: @FILE with one visitor per line, or the variable {AUTH}.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME|TABLE",
    help='A model to offer, such as nouns or \'{use = "prx", device = "cuda"}\'.',
)
@click.option(
    "--seconds", type=click.FloatRange(1), default=300, show_default=True, help="Longest run."
)
@click.option(
    "--seeds", type=click.IntRange(1, 256), default=16, show_default=True, help="Most in a run."
)
@click.option(
    "--queue", type=click.IntRange(1, 1000), default=8, show_default=True, help="Runs that wait."
)
@in_one_line
def web(
    host: str,
    port: int,
    auth: tuple[str, ...],
    backends: tuple[str, ...],
    seconds: float,
    seeds: int,
    queue: int,
) -> None:
    """Open a page to play with, at http://127.0.0.1:7860.

    Choose a model and a stack by forms, draw masks and sketches, watch the pictures grow, turn
    them, and download them with their recipes. It needs the extra web. Ctrl-C ends it.
    """
    users = users_of(auth or tuple(filter(None, [os.environ.get(AUTH)])))
    if importlib.util.find_spec("gradio") is None:
        raise BadInput("web: it needs Gradio. Run pip install 'diffusion-composer[web]'.")
    from composer_studio.cli.options import table_or_name  # noqa: PLC0415
    from composer_studio.web.limits import Limits  # noqa: PLC0415  # loads torch
    from composer_studio.web.served import Served  # noqa: PLC0415
    from composer_studio.web.server import Address, server  # noqa: PLC0415

    address = Address(host, port, users)
    served = Served([table_or_name(one, "--backend") for one in backends])
    for name in served.names if backends else ():
        served.load(name)
    with server(address, served, Limits(seconds=seconds, seeds=seeds, queue=queue)) as running:
        click.echo(f"The page is at {address.url}. Ctrl-C ends it.")
        signal.signal(signal.SIGTERM, _ended)
        with contextlib.suppress(KeyboardInterrupt):
            running.run()
    click.echo("The page is closed. What was downloaded stays; the same command opens it again.")


def _ended(number: int, frame: object) -> None:
    """End as after Ctrl-C, so that the pictures of visitors are removed."""
    raise KeyboardInterrupt


def users_of(written: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(user, password) of texts such as "user:password", or of "@FILE" with a line for each.

    Raises:
        BadInput: one is no such text, or the file cannot be read.
    """
    lines: list[str] = []
    for one in written:
        if not one.startswith("@"):
            lines.append(one)
            continue
        try:
            lines += Path(one[1:]).read_text().split()
        except (OSError, ValueError) as error:
            raise BadInput(f"--auth: the file {one[1:]} cannot be read.") from error
    users = []
    for number, line in enumerate(lines, 1):
        user, colon, password = line.partition(":")
        if not (user and colon and password):  # the text is a secret, and is not shown
            raise BadInput(f"--auth: entry {number} must be user:password.")
        users.append((user, password))
    if written and not users:
        raise BadInput("--auth: it names nobody. Write user:password.")
    return tuple(users)
