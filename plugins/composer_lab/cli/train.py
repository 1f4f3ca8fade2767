"""``composer train``: train the shipped models again, or your own."""

from __future__ import annotations

from pathlib import Path

import click

from composer.commands.errors import one_sentence
from composer.commands.paths import NamedPath
from composer.writing import make_folder, require_file
from composer_lab.cli.train_digits import (
    denoiser,
    mnist,
    mnist_autoencoder,
    mnist_few_step,
    mnist_latent,
)
from composer_lab.cli.train_options import Digits, Training, digits_options, training_options
from composer_lab.training.config import TrainingConfig
from composer_plugins.backends.mnist.data import load_mnist

NOUNS = "nouns"
READERS = ["plain", "residual", "lenet", "shallow", "strided"]


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
def nouns(data: str, epoch_size: int, training: Training) -> None:
    """Train a diffusers UNet on Nouns, pixel-art characters of 32x32, or on your own images.

    Every step draws new Nouns, and the network is conditioned on their heads. Images of a folder
    are cropped and resized to 32x32, and the network is unconditional. OUT gets checkpoint.pt,
    log.json, loss.png and the pipeline model/, which load_backend("diffusers", model=OUT/model)
    loads.
    """
    from composer_lab.training.nouns import train_nouns  # noqa: PLC0415  # needs torch

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
    config, out, init, progress = training
    train_nouns(config, out, folder, init, epoch=epoch_size, progress=progress)


@train.command("judge")
@digits_options
@click.option("--out", type=NamedPath(), required=True, help="Where to write.")
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
@one_sentence
def judge(digits: Digits, out: Path, network: str, epochs: int | None, seed: int | None) -> None:
    """Train a classifier that judges samples, or one that steers them; no network does both."""
    from composer_lab.training.judge import train_judge  # noqa: PLC0415
    from composer_lab.training.readers import (  # noqa: PLC0415
        reader_accuracy,
        save_reader,
        train_reader,
    )

    require_file(out)
    make_folder(out.parent)
    images, labels = digits.read()
    if network == "plain":
        judge = train_judge(images, labels, epochs or 5, seed or 0)
        judge.save(out)
        right = reader_accuracy(judge, *load_mnist("test", digits.folder))
    else:
        reader = train_reader(network, images, labels, epochs, seed)
        save_reader(reader, out)
        right = reader_accuracy(reader, *load_mnist("test", digits.folder))
    click.echo(f"test accuracy {right:.4f}, wrote {out}")


for command in (mnist, denoiser, mnist_autoencoder, mnist_latent, mnist_few_step):
    train.add_command(command)
