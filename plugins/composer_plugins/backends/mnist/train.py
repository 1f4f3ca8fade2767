"""Training the MNIST UNet: the two objectives, and what is written at the end."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from composer.predictions import PREDICTIONS
from composer_plugins.backends.mnist.backend import SCHEDULES, read_unet
from composer_plugins.backends.mnist.preconditioned import Preconditioned
from composer_plugins.backends.mnist.unet import MnistUNet
from composer_plugins.training import Objective, Trainer
from composer_plugins.training_config import TrainingConfig
from composer_plugins.training_data import FixedImages
from composer_plugins.training_output import forget_origin, plot_loss
from composer_plugins.writing import write_atomically


class PathSpec(NamedTuple):
    """A path and a prediction type, as written to path.json beside the weights.

    ``network`` is what the network itself speaks: ``prediction``, or "flow", reparametrised.
    """

    schedule: dict[str, Any]
    prediction: str
    network: str

    def objective(self) -> Objective:
        """What a Trainer needs."""
        options = dict(self.schedule)
        return Objective(SCHEDULES[options.pop("type")](**options), PREDICTIONS[self.prediction])


# 1000 steps of beta up to 0.02 end in noise (alpha_bar = 4e-5); the course's 300 do not (0.048).
_LINEAR = {"type": "linear", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
OBJECTIVES = {
    "flow": PathSpec({"type": "flow"}, "flow", "flow"),
    "ddpm": PathSpec(_LINEAR, "epsilon", "epsilon"),
    "ddpm-preconditioned": PathSpec(_LINEAR, "epsilon", "flow"),
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
) -> MnistUNet:
    """Train, resuming what ``out`` holds, and write model, log and loss curve there.

    Args:
        objective: a key of OBJECTIVES.
        images, labels: uint8 (N, 28, 28) and int64 (N,).
        width: the UNet's hidden_size.
        init: folder of a trained model whose weights to start from.
    """
    path = OBJECTIVES[objective]
    torch.manual_seed(config.seed)
    if init is None:
        model = MnistUNet(hidden_size=width)
    else:
        model = read_unet(init)
        if model.hidden_size != width:
            raise ValueError(
                f"{init} has width {model.hidden_size}; start from it with --width "
                f"{model.hidden_size}"
            )
    goal, trained = path.objective(), cast(nn.Module, model.float())
    if path.network != path.prediction:
        trained = Preconditioned(trained, goal)
    trainer = Trainer(trained, goal, FixedImages(images, labels), 10, config, out)
    trained = trainer.run(progress)
    unet = cast(MnistUNet, trained.network if path.network != path.prediction else trained)
    save_model(unet, path, out / "model")
    plot_loss(trainer.losses, out / "loss.png", f"MNIST, {objective}")
    return unet


def save_model(model: MnistUNet, path: PathSpec, folder: Path) -> None:
    """Write float16 safetensors, config.json and path.json."""
    half = copy.deepcopy(model).cpu()
    nn.Module.half(half)  # diffusers' own warns of modules that are to stay float32: none here
    half.save_pretrained(folder)
    forget_origin(folder / "config.json")
    description = json.dumps(path._asdict(), indent=1)
    write_atomically(folder / "path.json", lambda file: file.write_text(description))
