"""Training the MNIST UNet: the objectives, the one-step denoiser, and the outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from composer.predictions import PREDICTIONS, SAMPLE
from composer.writing import write_atomically
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.denoiser import DESCRIPTION, FixedNoise
from composer_lab.training.objective import Objective
from composer_lab.training.output import plot_loss, write_network
from composer_lab.training.preconditioned import Preconditioned
from composer_lab.training.snapshots import draw_denoised, draw_mnist
from composer_lab.training.trainer import MODEL, Trainer, Writer
from composer_plugins.backends.mnist.backend import SCHEDULES, read_unet
from composer_plugins.backends.mnist.unet import CONDITIONINGS, MnistUNet

if TYPE_CHECKING:
    from PIL import Image


class PathSpec(NamedTuple):
    """A path and a prediction type, as written to path.json beside the weights.

    ``network`` is the prediction type of the network itself: ``prediction``, or a reparametrised
    "flow".
    """

    schedule: dict[str, Any]
    prediction: str
    network: str

    def objective(self) -> Objective:
        """The objective for a Trainer."""
        options = dict(self.schedule)
        return Objective(SCHEDULES[options.pop("type")](**options), PREDICTIONS[self.prediction])


def _linear(num_train_timesteps: int) -> dict[str, Any]:
    betas = {"beta_start": 1e-4, "beta_end": 0.02}
    return {"type": "linear", "num_train_timesteps": num_train_timesteps, **betas}


# 1000 steps of beta up to 0.02 end in noise (alpha_bar = 4e-5); the course's 300 end at 0.048.
OBJECTIVES = {
    "flow": PathSpec({"type": "flow"}, "flow", "flow"),
    "ddpm": PathSpec(_linear(1000), "epsilon", "epsilon"),
    "ddpm-300": PathSpec(_linear(300), "epsilon", "epsilon"),
    "ddpm-preconditioned": PathSpec(_linear(1000), "epsilon", "flow"),
}


def train_mnist(
    objective: str,
    images: Tensor,
    labels: Tensor,
    config: TrainingConfig,
    out: Path,
    width: int = 64,
    init: Path | None = None,
    progress: bool = True,
    conditioning: str = "class",
) -> MnistUNet:
    """Train, or resume the training in ``out``; write model, samples, log and loss curve there.

    Args:
        objective: a key of OBJECTIVES.
        images, labels: uint8 (N, 28, 28) and int64 (N,).
        width: the UNet's hidden_size.
        init: folder of a trained model whose weights to start from.
        conditioning: the UNet's.
    """
    path = OBJECTIVES[objective]
    torch.manual_seed(config.seed)
    model = _unet(width, conditioning) if init is None else read_unet(init)
    _require_same(model, width, conditioning, init)
    goal, trained = path.objective(), cast(nn.Module, model)
    if path.network != path.prediction:
        trained = Preconditioned(trained, goal)
    data = FixedImages(images, labels)
    about = {"objective": objective, "conditioning": conditioning}
    trainer = Trainer(trained, goal, data, model.num_classes, config, out, about)
    write = unet_writer(trainer, "path.json", path._asdict(), draw_mnist, f"MNIST, {objective}")
    return _unet_of(trainer.run(progress, write))


def train_denoiser(
    noise: FixedNoise,
    images: Tensor,
    config: TrainingConfig,
    out: Path,
    width: int = 128,
    init: Path | None = None,
    progress: bool = True,
) -> MnistUNet:
    """Train a one-step denoiser, a UNet without time or class; otherwise as :func:`train_mnist`.

    Args:
        noise: the noise to train on.
        images: uint8 (N, 28, 28).
    """
    torch.manual_seed(config.seed)
    model = _unet(width, "none") if init is None else read_unet(init, DESCRIPTION, "denoiser")
    _require_same(model, width, "none", init)
    data = FixedImages(images, torch.zeros(len(images), dtype=torch.int64))
    trainer = Trainer(model, Objective(noise, SAMPLE), data, 0, config, out, asdict(noise))
    title = f"One-step denoiser, {noise}"
    write = unet_writer(trainer, DESCRIPTION, asdict(noise), draw_denoised, title)
    return _unet_of(trainer.run(progress, write))


def save_model(model: MnistUNet, folder: Path, name: str, description: Mapping[str, Any]) -> None:
    """Write float16 safetensors, config.json and ``description``, as JSON of that name."""
    write_network(model, folder)
    content = json.dumps(description, indent=1)
    write_atomically(folder / name, lambda file: file.write_text(content))


def unet_writer(
    trainer: Trainer,
    name: str,
    description: Mapping[str, Any],
    draw: Callable[[Path], Image.Image],
    title: str,
) -> Writer:
    """A Writer of a MnistUNet, a picture of its samples, and the loss so far."""

    def write(trained: nn.Module, folder: Path) -> None:
        model = folder / MODEL
        save_model(_unet_of(trained), model, name, description)
        picture = draw(model)
        write_atomically(folder / "samples.png", lambda file: picture.save(file, format="PNG"))
        plot_loss(trainer.losses, folder / "loss.png", title)

    return write


def _unet(width: int, conditioning: str) -> MnistUNet:
    num_classes = 10 if "class" in CONDITIONINGS[conditioning] else 0
    unet: MnistUNet = MnistUNet(
        hidden_size=width, num_classes=num_classes, conditioning=conditioning
    )
    return unet


def _require_same(model: MnistUNet, width: int, conditioning: str, init: Path | None) -> None:
    """Raise a ValueError unless the initial network has the requested layout."""
    asked = {"width": width, "conditioning": conditioning}
    found = {"width": model.hidden_size, "conditioning": model.conditioning}
    if differing := {key: value for key, value in found.items() if value != asked[key]}:
        options = " ".join(f"--{key} {value}" for key, value in differing.items())
        raise ValueError(f"--init {init} has another layout. Start from it with {options}.")


def _unet_of(trained: nn.Module) -> MnistUNet:
    return cast(MnistUNet, trained.network if isinstance(trained, Preconditioned) else trained)
