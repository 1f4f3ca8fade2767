"""The options that every training takes, gathered into one TrainingConfig."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from composer_lab.training.config import TrainingConfig
from composer_lab.training.schedules import LR_SCHEDULES

Command = Callable[..., None]
DATA = click.option("--data", type=click.Path(path_type=Path), help="Folder of the four idx files.")
LIMIT = click.option(
    "--limit", type=click.IntRange(1), help="Use the first N images only, for trying things out."
)


def epochs(value: str | tuple[int, ...]) -> tuple[int, ...]:
    """Parse whole numbers with commas between them; a default is a tuple already."""
    if isinstance(value, tuple):
        return value
    try:
        return tuple(int(part) for part in value.split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(f"epochs must be a list such as 1,5,10, got {value!r}.") from error


SETTINGS: dict[str, dict[str, Any]] = {
    "epochs": {},
    "batch_size": {},
    "learning_rate": {},
    "lr_schedule": {"type": click.Choice(list(LR_SCHEDULES))},
    "adam_betas": {"type": (float, float)},
    "ema_decay": {"help": "Decay of the average of the weights; 0 for the last weights."},
    "logit_normal": {"type": (float, float), "help": "Mean and spread of the times' logit."},
    "seed": {},
    "device": {},
    "bf16": {"help": "Autocast to bfloat16; by default if the device computes in it."},
    "snapshots": {
        "type": epochs,
        "metavar": "1,5,...",
        "help": "Epochs after which to write the model.",
    },
}
"""{field of TrainingConfig: arguments of its click option}."""
SWITCHES = frozenset({"bf16"})
"""Options written as --name or --no-name."""


def training_options(
    defaults: TrainingConfig, without: Sequence[str] = ()
) -> Callable[[Command], Command]:
    """Options for a command that takes config, out, init and progress.

    Args:
        defaults: defaults of the options.
        without: fields that this training does not use.
    """
    names = [name for name in SETTINGS if name not in without]
    folder = click.Path(path_type=Path)
    options = [
        click.option("--out", type=folder, required=True, help="Folder to write to."),
        click.option("--init", type=folder, help="Folder of a trained model to start from."),
        *(
            click.option(
                _declared(name),
                default=getattr(defaults, name),
                show_default=True,
                **SETTINGS[name],
            )
            for name in names
        ),
        click.option("--progress/--no-progress", default=True),
    ]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def configured(init: Path | None, **values: Any) -> None:
            chosen = {name: values.pop(name) for name in names}
            started_from = "scratch" if init is None else str(init)
            config = TrainingConfig(**chosen, started_from=started_from)
            command(config=config, init=init, **values)

        return functools.reduce(lambda done, option: option(done), reversed(options), configured)

    return decorate


def _declared(name: str) -> str:
    words = name.replace("_", "-")
    return f"--{words}/--no-{words}" if name in SWITCHES else f"--{words}"


def say_what_was_written(out: Path) -> None:
    """Name what a training writes."""
    click.echo(f"wrote {out / 'model'}, {out / 'log.json'} and {out / 'loss.png'}")


def require_matplotlib() -> None:
    """Raise a ValueError without matplotlib, which draws the loss, before the work."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "the loss curve needs matplotlib. Run pip install 'diffusion-composer[train]'."
        )
