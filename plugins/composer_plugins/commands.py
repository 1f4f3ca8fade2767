"""``composer train``: train the shipped models again, or your own."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from composer_plugins.backends.mnist.data import load_mnist
from composer_plugins.training_config import TrainingConfig

OBJECTIVES = ["flow", "ddpm", "ddpm-preconditioned"]
F = TypeVar("F", bound=Callable[..., Any])
_DEFAULTS = {f.name: f.default for f in fields(TrainingConfig)}


def one_sentence(command: F) -> F:
    """Show what is wrong as one sentence instead of a traceback."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            RuntimeError,
            OSError,
        ) as error:
            raise click.ClickException(str(error)) from error

    return wrapper  # type: ignore[return-value]


def options_of_every_training(command: F) -> F:
    """What is trained from what, for how long, and where it is written."""
    options = (
        click.option(
            "--out", type=click.Path(path_type=Path), required=True, help="Where to write."
        ),
        click.option(
            "--init", type=click.Path(path_type=Path), help="Trained folder to start from."
        ),
        click.option("--epochs", default=_DEFAULTS["epochs"], show_default=True),
        click.option("--batch-size", default=_DEFAULTS["batch_size"], show_default=True),
        click.option("--learning-rate", default=_DEFAULTS["learning_rate"], show_default=True),
        click.option("--seed", default=0, show_default=True),
        click.option("--device", default="cpu", show_default=True),
        click.option("--bf16/--no-bf16", default=False, help="Autocast to bfloat16."),
        click.option("--progress/--no-progress", default=True),
    )
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


@click.group()
def train() -> None:
    """Train a model; the same command again resumes what was stopped."""


@train.command("mnist")
@click.option("--objective", type=click.Choice(OBJECTIVES), default="flow", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the four idx files.")
@click.option(
    "--width", type=click.IntRange(1), default=64, show_default=True, help="Hidden width D."
)
@click.option(
    "--limit", type=click.IntRange(1), help="Use the first N images only, for trying things out."
)
@click.option("--logit-normal", type=(float, float), help="Mean and spread of the times' logit.")
@options_of_every_training
@one_sentence
def mnist(
    objective: str,
    data: Path | None,
    out: Path,
    init: Path | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    width: int,
    limit: int | None,
    logit_normal: tuple[float, float] | None,
    seed: int,
    device: str,
    bf16: bool,
    progress: bool,
) -> None:
    """Train the MNIST UNet by flow matching or as DDPM.

    Without --data the images come from $COMPOSER_MNIST, else from a checked download into the
    cache. OUT gets checkpoint.pt, log.json, loss.png and the folder model/, which
    load_backend("mnist", weights=OUT/model) loads.
    """
    from composer_plugins.backends.mnist.train import train_mnist  # noqa: PLC0415  # needs torch

    _require_matplotlib()
    images, labels = load_mnist("train", data)
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        logit_normal=logit_normal,
        seed=seed,
        device=device,
        bf16=bf16,
        started_from="scratch" if init is None else str(init),
    )
    train_mnist(objective, images[:limit], labels[:limit], config, out, width, init, progress)
    click.echo(f"wrote {out / 'model'}, {out / 'log.json'} and {out / 'loss.png'}")


@train.command("nouns")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of images to train on.")
@click.option(
    "--epoch-size",
    type=click.IntRange(1),
    default=25_600,
    show_default=True,
    help="Nouns an epoch.",
)
@options_of_every_training
@one_sentence
def nouns(
    data: Path | None,
    epoch_size: int,
    out: Path,
    init: Path | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: str,
    bf16: bool,
    progress: bool,
) -> None:
    """Train a diffusers UNet on Nouns, pixel-art characters of 32x32, or on your own images.

    Without --data every step draws fresh Nouns from the traits in the package and the network is
    conditioned on their heads; with it the images of the folder are cropped and resized to 32x32,
    and it is unconditional. OUT gets checkpoint.pt, log.json, loss.png and the pipeline model/,
    which load_backend("diffusers", model=OUT/model) loads.
    """
    from composer_plugins.backends.nouns.train import train_nouns  # noqa: PLC0415  # needs torch

    _require_matplotlib()
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        bf16=bf16,
        started_from="scratch" if init is None else str(init),
    )
    train_nouns(config, out, data, init, epoch=epoch_size, progress=progress)
    click.echo(f"wrote {out / 'model'}, {out / 'log.json'} and {out / 'loss.png'}")


@train.command("judge")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the four idx files.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where to write.")
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
@one_sentence
def judge(data: Path | None, out: Path, epochs: int, seed: int) -> None:
    """Train the classifier that judges samples; it never guides them."""
    from composer_plugins.backends.mnist.judge import accuracy, train_judge  # noqa: PLC0415

    if out.is_dir():
        raise ValueError(f"{out} is a folder; name the file to write")
    model = train_judge(*load_mnist("train", data), epochs=epochs, seed=seed)
    model.save(out)
    click.echo(f"test accuracy {accuracy(model, *load_mnist('test', data)):.4f}, wrote {out}")


def _require_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the loss curve needs matplotlib: pip install 'diffusion-composer[train]'")
