"""The backend "mnist-latent": digits by flow matching on the latents of a small autoencoder."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from composer import UNCONDITIONAL, Backend, Batch, Output, State, hookimpl
from composer.authoring import short_repr, to_device
from composer.named import Device, DType
from composer.predictions import FLOW, Prediction
from composer.schedules import FlowSchedule, Schedule
from composer.solvers import Euler, Solver
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.checksum import require_checksum
from composer_plugins.backends.deepfloyd.reading import Reader
from composer_plugins.backends.files import require_name
from composer_plugins.backends.forward import forward
from composer_plugins.backends.mnist.backend import digit_of
from composer_plugins.backends.placement import place_of, placement

CLOCK = 1000
"""The network takes the times of the path, from 0 to 1, times this, for which diffusers' embedding
of times is made."""
COMMANDS = {"UNet2DModel": "mnist-latent", "AutoencoderKL": "mnist-autoencoder"}
"""{network: the ``composer train`` command that writes it}."""
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False, repr=False)
class MnistLatentBackend:
    """A UNet2DModel of latents and the autoencoder around it. Conditions are the digits 0 to 9.

    The loop runs on latents (B, 4, 7, 7) of about unit variance, and ``finish`` decodes: results
    are images (B, 1, 28, 28).

    Args:
        unet: called as unet(z, CLOCK * t, class_labels=labels); its last label means
            unconditional.
        autoencoder: the map between images and latents.
        dtype: dtype of x in the loop, whatever the networks compute in.
    """

    unet: Any
    autoencoder: Autoencoder
    schedule: Schedule = FlowSchedule()
    prediction: Prediction = FLOW
    default_solver: Solver = Euler()
    dtype: torch.dtype = torch.float32

    differentiable = True

    __repr__ = short_repr

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"unet": self.unet, "vae": self.autoencoder.vae}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents."""
        config = self.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(1, H, W) of the images."""
        side = self.unet.config.sample_size * self.autoencoder.factor
        return self.autoencoder.vae.config.out_channels, side, side

    @property
    def num_classes(self) -> int:
        return int(self.unet.config.num_class_embeds) - 1

    @property
    def device(self) -> torch.device:
        return place_of(self.unet)[0]

    def encode(self, condition: Any) -> Hashable:
        return digit_of(condition, self.num_classes)

    def encode_image(self, x: Tensor) -> Tensor:
        """Latents (B, *shape) of images x (B, 1, H, W) in [-1, 1]."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, *image_shape) of latents z (B, *shape)."""
        return self.autoencoder.decode(z)

    @hookimpl(trylast=True)  # what other plugins do at the end, they do to the latents
    def finish(self, state: State) -> None:
        state.x = self.decode(state.x)

    def evaluate(self, batch: Batch) -> Output:
        device, dtype = place_of(self.unet)
        times = self.schedule.unit_time(torch.tensor(batch.times, dtype=torch.float64))
        none = self.num_classes
        labels = torch.tensor([none if c is UNCONDITIONAL else c for c in batch.conditions])
        x, place = batch.x.to(dtype), to_device((CLOCK * times).float(), device)
        classes = to_device(labels, device)
        return Output(
            forward(lambda: self.unet(x, place, class_labels=classes).sample, x, self.dtype)
        )


def load_mnist_latent(
    weights: str | Path | None = None,
    device: Device = "cpu",
    dtype: DType = "float32",
) -> Backend:
    """MNIST digits by flow matching on latents (4, 7, 7); default solver Euler.

    Args:
        weights: the folder model/ that ``composer train mnist-latent`` wrote; None for the shipped
            one.
        device: a torch.device or its name, or "auto": the first there is of cuda, mps and cpu.
        dtype: of the networks, float32, bfloat16 or float16, as a torch.dtype or its name.
    """
    place = placement(device, dtype)
    if weights is not None:
        require_name(weights, "weights")
        return _read(Path(weights), *place)
    with as_file(files(__package__) / "weights" / "latent") as folder:
        return _read(folder, *place)


def load_autoencoder(folder: Path | None = None) -> Autoencoder:
    """The autoencoder of a folder that ``composer train mnist-autoencoder`` wrote, in float32.

    Args:
        folder: None for the shipped one.
    """
    if folder is not None:
        return _autoencoder(folder)
    with as_file(files(__package__) / "weights" / "latent" / "vae") as shipped:
        return _autoencoder(shipped)


def _read(folder: Path, device: torch.device, dtype: torch.dtype) -> MnistLatentBackend:
    unet, autoencoder = read_unet(folder / "unet"), _autoencoder(folder / "vae")
    for network in (unet, autoencoder.vae):
        nn.Module.to(network, device, dtype)
    return MnistLatentBackend(unet, autoencoder)


def _autoencoder(folder: Path) -> Autoencoder:
    return Autoencoder.of(_network(folder, "AutoencoderKL"), slicing=False)


def read_unet(folder: Path) -> Any:
    """The UNet2DModel of latents in a folder, in float32."""
    return _network(folder, "UNet2DModel")


def _network(folder: Path, kind: str) -> nn.Module:
    """A network of diffusers for evaluation, in float32.

    Raises:
        ValueError: the folder holds no such network, or its weights are damaged.
    """
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {str(folder)!r}. Name a folder model/ that `composer train "
            f"{COMMANDS[kind]}` wrote."
        )
    network = Reader(torch.float32, CPU).network(folder, kind)
    for file in folder.glob("*.safetensors"):
        try:
            require_checksum(file)
        except ValueError as error:
            raise ValueError(f"{folder} is damaged ({error}). Start its training again.") from error
    return network
