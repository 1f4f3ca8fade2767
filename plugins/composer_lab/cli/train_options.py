"""The options that trainings share, each group gathered into one argument."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from composer.commands.paths import NamedPath
from composer_lab.training.config import TrainingConfig
from composer_lab.training.schedules import LR_SCHEDULES
from composer_plugins.backends.mnist.data import load_mnist

if TYPE_CHECKING:
    from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])
Command = Callable[..., None]
DATA = click.option("--data", type=NamedPath(), help="Folder of the four idx files.")
LIMIT = click.option(
    "--limit", type=click.IntRange(1), help="Use the first N images only, for trying things out."
)


class Training(NamedTuple):
    """How to train, and where to write.

    Attributes:
        config: the settings.
        out: a folder.
        init: folder of a trained model to start from, or None.
        progress: whether to show a progress bar.
    """

    config: TrainingConfig
    out: Path
    init: Path | None
    progress: bool


@dataclass(frozen=True)
class Digits:
    """The training images of MNIST, which are read when they are needed.

    Attributes:
        folder: of the four idx files; None for the default one.
        limit: how many, or None for all.
    """

    folder: Path | None
    limit: int | None

    def read(self) -> tuple[Tensor, Tensor]:
        """Images, uint8 (N, 28, 28), and labels, int64 (N,)."""
        images, labels = load_mnist("train", self.folder)
        return images[: self.limit], labels[: self.limit]


def digits_options(command: F) -> F:
    """--data and --limit for a command that takes digits."""

    @functools.wraps(command)
    def configured(data: Path | None, limit: int | None, **values: Any) -> Any:
        return command(digits=Digits(data, limit), **values)

    return DATA(LIMIT(configured))  # type: ignore[return-value]


def width_option(default: int) -> Callable[[F], F]:
    """The hidden width of the UNet."""
    return click.option(
        "--width", type=click.IntRange(1, 1024), default=default, show_default=True, help="Width D."
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
    """Options for a command that takes a training, and whose end says what was written.

    Args:
        defaults: defaults of the options.
        without: fields that this training does not use.
    """
    names = [name for name in SETTINGS if name not in without]
    folder = NamedPath()
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
        def configured(out: Path, init: Path | None, progress: bool, **values: Any) -> None:
            chosen = {name: values.pop(name) for name in names}
            started_from = "scratch" if init is None else str(init)
            config = TrainingConfig(**chosen, started_from=started_from)
            _require_matplotlib()
            command(training=Training(config, out, init, progress), **values)
            click.echo(f"wrote {out / 'model'}, {out / 'log.json'} and {out / 'loss.png'}")

        return functools.reduce(lambda done, option: option(done), reversed(options), configured)

    return decorate


def _declared(name: str) -> str:
    words = name.replace("_", "-")
    return f"--{words}/--no-{words}" if name in SWITCHES else f"--{words}"


def _require_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "the loss curve needs matplotlib. Run pip install 'diffusion-composer[train]'."
        )
