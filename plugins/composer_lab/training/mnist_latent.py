"""Training of a flow on the latents of digits: a small UNet2DModel of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from composer.predictions import FLOW
from composer.schedules import FlowSchedule
from composer.writing import write_atomically
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.objective import Objective
from composer_lab.training.output import plot_loss, write_network
from composer_lab.training.snapshots import draw_samples
from composer_lab.training.timed import Timed
from composer_lab.training.trainer import MODEL, Trainer
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.mnist.data import to_model
from composer_plugins.backends.mnist.latent import (
    CLOCK,
    MnistLatentBackend,
    load_mnist_latent,
    read_unet,
)

if TYPE_CHECKING:
    from PIL import Image

WIDTH = 64
NUM_CLASSES = 10


def train_mnist_latent(
    autoencoder: Autoencoder,
    images: Tensor,
    labels: Tensor,
    config: TrainingConfig,
    out: Path,
    width: int = WIDTH,
    init: Path | None = None,
    progress: bool = True,
) -> MnistLatentBackend:
    """Train, or resume the training in ``out``; write model, samples, log and loss curve there.

    The model holds the autoencoder, too.

    Args:
        autoencoder: of the latents.
        images, labels: uint8 (N, 28, 28) and int64 (N,).
        width: channels of the UNet, a multiple of 32.
        init: folder of a trained model whose UNet to start from.
    """
    latents = encoded(autoencoder, images)
    torch.manual_seed(config.seed)
    unet = new_unet(latents.shape[1:], width) if init is None else read_unet(init / "unet")
    trainer = Trainer(
        Timed(unet.requires_grad_(True), CLOCK),
        Objective(FlowSchedule(), FLOW),
        FixedImages(latents, labels),
        NUM_CLASSES,
        config,
        out,
        {"width": width},
    )

    def write(trained: nn.Module, folder: Path) -> None:
        write_network(cast(Timed, trained).unet, folder / MODEL / "unet")
        write_network(autoencoder.vae, folder / MODEL / "vae")
        picture = draw_latent_samples(folder / MODEL)
        write_atomically(folder / "samples.png", lambda file: picture.save(file, format="PNG"))
        plot_loss(trainer.losses, folder / "loss.png", "MNIST, flow of latents")

    return MnistLatentBackend(cast(Timed, trainer.run(progress, write)).unet, autoencoder)


def encoded(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """The latents (N, C, h, w) of uint8 images (N, 28, 28)."""
    return torch.cat([autoencoder.encode(to_model(part)) for part in images.split(500)])


def new_unet(shape: Sequence[int], width: int) -> Any:
    """A UNet2DModel of latents (C, h, w) without a smaller level, with attention."""
    channels, side, _ = shape
    return UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(width,),
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        attention_head_dim=32,
        norm_num_groups=32,
        num_class_embeds=NUM_CLASSES + 1,
    )


def draw_latent_samples(folder: Path) -> Image.Image:
    """Samples of a folder that ``composer train mnist-latent`` wrote."""
    return draw_samples(load_mnist_latent(folder), NUM_CLASSES)
