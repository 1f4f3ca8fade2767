"""``composer train`` for the models of digits."""

from __future__ import annotations

from pathlib import Path

import click

from composer.commands.errors import one_sentence
from composer.commands.paths import NamedPath
from composer_lab.cli.train_options import (
    Digits,
    Training,
    digits_options,
    training_options,
    width_option,
)
from composer_lab.training.config import TrainingConfig
from composer_lab.training.presets import PRESETS

SNAPSHOTS = (1, 5, 10, 20)
OBJECTIVES = ["flow", "ddpm", "ddpm-300", "ddpm-preconditioned"]
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


def choose_preset(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Let a preset set the defaults of the other options."""
    if name is not None:
        context.default_map = PRESETS[name]


@click.command("mnist")
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
@digits_options
@width_option(64)
@one_sentence
@training_options(TrainingConfig(snapshots=SNAPSHOTS))
def mnist(
    objective: str, conditioning: str, width: int, digits: Digits, training: Training
) -> None:
    """Train the MNIST UNet by flow matching or as DDPM.

    Without --data the images come from $COMPOSER_MNIST, else from a checked download into the
    cache. OUT gets checkpoint.pt, log.json, loss.png, samples.png and the folder model/, which
    load_backend("mnist", weights=OUT/model) loads; OUT/epoch-001 and so on get the same.
    """
    from composer_lab.training.mnist import train_mnist  # noqa: PLC0415  # needs torch

    config, out, init, progress = training
    train_mnist(objective, *digits.read(), config, out, width, init, progress, conditioning)


@click.command("denoiser")
@click.option(
    "--sigma",
    default=0.5,
    show_default=True,
    help="Standard deviation of the noise, for pixels in [0, 1].",
)
@click.option(
    "--pure-noise", is_flag=True, help="Train on noise alone, which learns the mean digit."
)
@digits_options
@width_option(128)
@one_sentence
@training_options(DENOISER, without=["logit_normal"])
def denoiser(
    sigma: float, pure_noise: bool, width: int, digits: Digits, training: Training
) -> None:
    """Train the one-step denoiser: the MNIST UNet without time, from x_0 + noise to x_0.

    The defaults are the course's. Data and OUT as for `composer train mnist`; load_denoiser of
    composer_lab.training.denoiser loads OUT/model.
    """
    from composer_lab.training.denoiser import FixedNoise  # noqa: PLC0415  # needs torch
    from composer_lab.training.mnist import train_denoiser  # noqa: PLC0415

    noise = FixedNoise(sigma, pure_noise)
    config, out, init, progress = training
    train_denoiser(noise, digits.read()[0], config, out, width, init, progress)


@click.command("mnist-autoencoder")
@click.option(
    "--sigma",
    default=0.2,
    show_default=True,
    help="Standard deviation of the noise on the latents, whose own is 1.",
)
@digits_options
@width_option(8)
@one_sentence
@training_options(AUTOENCODER, without=["class_drop", "logit_normal"])
def mnist_autoencoder(sigma: float, width: int, digits: Digits, training: Training) -> None:
    """Train the autoencoder of digits: images (1, 28, 28), latents (4, 7, 7) with noise on them.

    Data and OUT as for `composer train mnist`; samples.png shows test digits, encoded and decoded.
    `composer train mnist-latent --autoencoder OUT/model` trains a flow on its latents.
    """
    from composer_lab.training.autoencoder import train_autoencoder  # noqa: PLC0415  # needs torch

    config, out, init, progress = training
    train_autoencoder(digits.read()[0], config, out, sigma, width, init, progress)


@click.command("mnist-latent")
@click.option(
    "--autoencoder",
    type=NamedPath(),
    help="Folder model/ that `composer train mnist-autoencoder` wrote; the shipped one by default.",
)
@digits_options
@width_option(64)
@one_sentence
@training_options(LATENT)
def mnist_latent(autoencoder: Path | None, width: int, digits: Digits, training: Training) -> None:
    """Train a flow on the latents of an autoencoder of digits.

    Data and OUT as for `composer train mnist`; load_backend("mnist-latent", weights=OUT/model)
    loads the flow and its autoencoder.
    """
    from composer_lab.training.mnist_latent import train_mnist_latent  # noqa: PLC0415  # slow
    from composer_plugins.backends.mnist.latent import load_autoencoder  # noqa: PLC0415

    coder = load_autoencoder(autoencoder)
    config, out, init, progress = training
    train_mnist_latent(coder, *digits.read(), config, out, width, init, progress)


@click.command("mnist-few-step")
@click.option(
    "--pairs",
    type=click.IntRange(1),
    default=8000,
    show_default=True,
    help="Pairs of a noise and the flow's image of it.",
)
@one_sentence
@training_options(FEW_STEP, without=["class_drop", "logit_normal"])
def mnist_few_step(pairs: int, training: Training) -> None:
    """Straighten a flow of digits by reflow, for one to four steps.

    --init is the flow to straighten, the shipped one by default; its guided images are the data.
    OUT as for `composer train mnist`, and pairs.safetensors; load_backend("mnist-few-step",
    weights=OUT/model) loads the model.
    """
    from composer_lab.training.reflow import train_few_step  # noqa: PLC0415  # needs torch

    config, out, init, progress = training
    train_few_step(config, out, pairs, init, progress)
