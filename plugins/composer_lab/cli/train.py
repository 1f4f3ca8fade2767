"""``composer train``: train the shipped models again, or your own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from composer.commands.errors import one_sentence
from composer.writing import make_folder, require_file
from composer_lab.cli.train_options import training_options
from composer_lab.training.config import TrainingConfig
from composer_lab.training.presets import PRESETS
from composer_plugins.backends.mnist.data import load_mnist

NOUNS = "nouns"
SNAPSHOTS = (1, 5, 10, 20)
OBJECTIVES = ["flow", "ddpm", "ddpm-300", "ddpm-preconditioned"]
READERS = ["plain", "residual", "lenet", "shallow", "strided"]
CONDITIONINGS = ["class", "add", "multiply"]
DENOISER = TrainingConfig(
    epochs=5,
    batch_size=256,
    learning_rate=1e-4,
    lr_schedule="constant",
    adam_betas=(0.9, 0.999),
    ema_decay=0.0,
    snapshots=SNAPSHOTS,
)
"""The course's."""
AUTOENCODER = TrainingConfig(epochs=1)
LATENT = TrainingConfig(epochs=3, snapshots=(1,))
FEW_STEP = TrainingConfig(epochs=9, learning_rate=1e-3, ema_decay=0.99)
F = TypeVar("F", bound=Callable[..., Any])


def choose_preset(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Let a preset set the defaults of the other options."""
    if name is not None:
        context.default_map = PRESETS[name]


DATA = click.option("--data", type=click.Path(path_type=Path), help="Folder of the four idx files.")
LIMIT = click.option(
    "--limit", type=click.IntRange(1), help="Use the first N images only, for trying things out."
)


def width_option(default: int) -> Callable[[F], F]:
    """The hidden width of the UNet."""
    return click.option(
        "--width", type=click.IntRange(1, 1024), default=default, show_default=True, help="Width D."
    )


class _Train(click.Group):
    """Reads `composer train --data X ...` as `composer train nouns --data X ...`.

    A group takes the first word that is not an option for a command, so the group must insert one.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].partition("=")[0] == "--data":
            args = [NOUNS, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Train)
def train() -> None:
    """Train a model; repeat the command to resume a stopped training.

    `composer train --data ...` is short for `composer train nouns --data ...`.
    """


@train.command("mnist")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    is_eager=True,
    expose_value=False,
    callback=choose_preset,
    help="The course's options; options given beside it override it.",
)
@click.option("--objective", type=click.Choice(OBJECTIVES), default="flow", show_default=True)
@click.option(
    "--conditioning",
    type=click.Choice(CONDITIONINGS),
    default="class",
    show_default=True,
    help="Condition on time and class, or on time alone: added, or multiplied.",
)
@DATA
@width_option(64)
@LIMIT
@one_sentence
@training_options(TrainingConfig(snapshots=SNAPSHOTS))
def mnist(
    objective: str,
    conditioning: str,
    data: Path | None,
    out: Path,
    init: Path | None,
    width: int,
    limit: int | None,
    config: TrainingConfig,
    progress: bool,
) -> None:
    """Train the MNIST UNet by flow matching or as DDPM.

    Without --data the images come from $COMPOSER_MNIST, else from a checked download into the
    cache. OUT gets checkpoint.pt, log.json, loss.png, samples.png and the folder model/, which
    load_backend("mnist", weights=OUT/model) loads; OUT/epoch-001 and so on get the same.
    """
    from composer_lab.training.mnist import train_mnist  # noqa: PLC0415  # needs torch

    _require_matplotlib()
    images, labels = load_mnist("train", data)
    train_mnist(
        objective, images[:limit], labels[:limit], config, out, width, init, progress, conditioning
    )
    _say_what_was_written(out)


@train.command("denoiser")
@click.option(
    "--sigma",
    default=0.5,
    show_default=True,
    help="Standard deviation of the noise, for pixels in [0, 1].",
)
@click.option(
    "--pure-noise", is_flag=True, help="Train on noise alone, which learns the mean digit."
)
@DATA
@width_option(128)
@LIMIT
@one_sentence
@training_options(DENOISER, without=["logit_normal"])
def denoiser(
    sigma: float,
    pure_noise: bool,
    data: Path | None,
    out: Path,
    init: Path | None,
    width: int,
    limit: int | None,
    config: TrainingConfig,
    progress: bool,
) -> None:
    """Train the one-step denoiser: the MNIST UNet without time, from x_0 + noise to x_0.

    The defaults are the course's. Data and OUT as for `composer train mnist`; load_denoiser of
    composer_lab.training.denoiser loads OUT/model.
    """
    from composer_lab.training.denoiser import FixedNoise  # noqa: PLC0415  # needs torch
    from composer_lab.training.mnist import train_denoiser  # noqa: PLC0415

    _require_matplotlib()
    noise = FixedNoise(sigma, pure_noise)
    images, _ = load_mnist("train", data)
    train_denoiser(noise, images[:limit], config, out, width, init, progress)
    _say_what_was_written(out)


@train.command("mnist-autoencoder")
@click.option(
    "--sigma",
    default=0.2,
    show_default=True,
    help="Standard deviation of the noise on the latents, whose own is 1.",
)
@DATA
@width_option(8)
@LIMIT
@one_sentence
@training_options(AUTOENCODER, without=["class_drop", "logit_normal"])
def mnist_autoencoder(
    sigma: float,
    data: Path | None,
    out: Path,
    init: Path | None,
    width: int,
    limit: int | None,
    config: TrainingConfig,
    progress: bool,
) -> None:
    """Train the autoencoder of digits: images (1, 28, 28), latents (4, 7, 7) with noise on them.

    Data and OUT as for `composer train mnist`; samples.png shows test digits, encoded and decoded.
    `composer train mnist-latent --autoencoder OUT/model` trains a flow on its latents.
    """
    from composer_lab.training.autoencoder import train_autoencoder  # noqa: PLC0415  # needs torch

    _require_matplotlib()
    images, _ = load_mnist("train", data)
    train_autoencoder(images[:limit], config, out, sigma, width, init, progress)
    _say_what_was_written(out)


@train.command("mnist-latent")
@click.option(
    "--autoencoder",
    type=click.Path(path_type=Path),
    help="Folder model/ that `composer train mnist-autoencoder` wrote; the shipped one by default.",
)
@DATA
@width_option(64)
@LIMIT
@one_sentence
@training_options(LATENT)
def mnist_latent(
    autoencoder: Path | None,
    data: Path | None,
    out: Path,
    init: Path | None,
    width: int,
    limit: int | None,
    config: TrainingConfig,
    progress: bool,
) -> None:
    """Train a flow on the latents of an autoencoder of digits.

    Data and OUT as for `composer train mnist`; load_backend("mnist-latent", weights=OUT/model)
    loads the flow and its autoencoder.
    """
    from composer_lab.training.mnist_latent import train_mnist_latent  # noqa: PLC0415  # slow
    from composer_plugins.backends.mnist.latent import load_autoencoder  # noqa: PLC0415

    _require_matplotlib()
    coder = load_autoencoder(autoencoder)
    images, labels = load_mnist("train", data)
    train_mnist_latent(coder, images[:limit], labels[:limit], config, out, width, init, progress)
    _say_what_was_written(out)


@train.command("mnist-few-step")
@click.option(
    "--pairs",
    type=click.IntRange(1),
    default=8000,
    show_default=True,
    help="Pairs of a noise and the flow's image of it.",
)
@one_sentence
@training_options(FEW_STEP, without=["class_drop", "logit_normal"])
def mnist_few_step(
    pairs: int, out: Path, init: Path | None, config: TrainingConfig, progress: bool
) -> None:
    """Straighten a flow of digits by reflow, for one to four steps.

    --init is the flow to straighten, the shipped one by default; its guided images are the data.
    OUT as for `composer train mnist`, and pairs.safetensors; load_backend("mnist-few-step",
    weights=OUT/model) loads the model.
    """
    from composer_lab.training.reflow import train_few_step  # noqa: PLC0415  # needs torch

    _require_matplotlib()
    train_few_step(config, out, pairs, init, progress)
    _say_what_was_written(out)


@train.command("nouns")
@click.option(
    "--data",
    default=NOUNS,
    show_default=True,
    help="`nouns`, drawn from traits in the package, or a folder of images.",
)
@click.option(
    "--epoch-size",
    type=click.IntRange(1),
    default=25_600,
    show_default=True,
    help="Nouns per epoch.",
)
@one_sentence
@training_options(TrainingConfig())
def nouns(
    data: str,
    epoch_size: int,
    out: Path,
    init: Path | None,
    config: TrainingConfig,
    progress: bool,
) -> None:
    """Train a diffusers UNet on Nouns, pixel-art characters of 32x32, or on your own images.

    Every step draws new Nouns, and the network is conditioned on their heads. Images of a folder
    are cropped and resized to 32x32, and the network is unconditional. OUT gets checkpoint.pt,
    log.json, loss.png and the pipeline model/, which load_backend("diffusers", model=OUT/model)
    loads.
    """
    from composer_lab.training.nouns import train_nouns  # noqa: PLC0415  # needs torch

    _require_matplotlib()
    if data == NOUNS and Path(data).is_dir():
        raise ValueError(
            f"--data {data} means the package's Nouns, but a folder here has that name too. Write "
            f"./{data} for the folder, or start in another folder for the package's."
        )
    if not data:
        raise ValueError(
            "--data must not be empty. Name a folder of images, or leave the option out."
        )
    folder = None if data == NOUNS else Path(data)
    train_nouns(config, out, folder, init, epoch=epoch_size, progress=progress)
    _say_what_was_written(out)


@train.command("judge")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the four idx files.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where to write.")
@click.option(
    "--network",
    type=click.Choice(READERS),
    default="plain",
    show_default=True,
    help="plain measures samples of digits; residual, lenet and shallow read anagrams; strided "
    "steers and chooses them.",
)
@click.option("--epochs", type=click.IntRange(1), help="By default those of the shipped network.")
@click.option("--seed", type=int, help="By default that of the shipped network.")
@LIMIT
@one_sentence
def judge(
    data: Path | None,
    out: Path,
    network: str,
    epochs: int | None,
    seed: int | None,
    limit: int | None,
) -> None:
    """Train a classifier that judges samples, or one that steers them; no network does both."""
    from composer_lab.training.judge import train_judge  # noqa: PLC0415
    from composer_lab.training.readers import (  # noqa: PLC0415
        reader_accuracy,
        save_reader,
        train_reader,
    )

    require_file(out)
    make_folder(out.parent)
    images, labels = (part[:limit] for part in load_mnist("train", data))
    if network == "plain":
        judge = train_judge(images, labels, epochs or 5, seed or 0)
        judge.save(out)
        right = reader_accuracy(judge, *load_mnist("test", data))
    else:
        reader = train_reader(network, images, labels, epochs, seed)
        save_reader(reader, out)
        right = reader_accuracy(reader, *load_mnist("test", data))
    click.echo(f"test accuracy {right:.4f}, wrote {out}")


def _say_what_was_written(out: Path) -> None:
    click.echo(f"wrote {out / 'model'}, {out / 'log.json'} and {out / 'loss.png'}")


def _require_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "the loss curve needs matplotlib. Run pip install 'diffusion-composer[train]'."
        )
