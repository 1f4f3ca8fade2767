"""Training of the autoencoder of digits: images (1, 28, 28), latents (4, 7, 7)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from composer.arguments import finite
from composer.contact_sheet import contact_sheet
from composer.writing import write_atomically
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.objective import Batch
from composer_lab.training.output import plot_loss, write_network
from composer_lab.training.trainer import MODEL, Trainer
from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.mnist.data import sample_digits
from composer_plugins.backends.mnist.latent import load_autoencoder

NOISE = 0.2
WIDTH = 8


@dataclass(frozen=True)
class Autoencoding:
    """Reconstruct x_0 from its latents plus noise. The inputs are x_0 and the noise (B, *shape).

    The latents have unit variance, so the noise bounds what they can carry, and the decoder learns
    to give neighbouring latents the same image. It stands for the KL term of Rombach et al. 2022,
    arXiv 2112.10752.

    Args:
        shape: (C, h, w) of the latents.
        sigma: standard deviation of the noise.
    """

    shape: tuple[int, int, int] = (4, 7, 7)
    sigma: float = NOISE

    def __post_init__(self) -> None:
        if finite(self.sigma, "sigma") < 0:
            raise ValueError(f"sigma must be at least 0, got {self.sigma}.")

    def batch(
        self,
        x0: Tensor,
        labels: Tensor,
        num_classes: int,
        config: TrainingConfig,
        generator: torch.Generator,
    ) -> Batch:
        noise = self.sigma * torch.randn((len(x0), *self.shape), generator=generator)
        return Batch((x0, noise), x0)

    def identity(self) -> dict[str, object]:
        return {"sigma": self.sigma}


class Noisy(nn.Module):
    """An autoencoder with noise on its latents, in units of their standard deviation.

    Args:
        vae: an AutoencoderKL, of whose posterior only the mode is trained.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.statistics = nn.BatchNorm2d(vae.config.latent_channels, affine=False)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W) and noise (B, c, h, w) -> reconstructions (B, C, H, W)."""
        modes = self.vae.encode(x, return_dict=False)[0].mode()
        self.statistics(modes)  # keeps their mean and variance
        spread = modes.std((0, 2, 3), keepdim=True)
        return cast(Tensor, self.vae.decode(modes + spread * noise, return_dict=False)[0])

    def finished(self) -> Any:
        """The AutoencoderKL, with the mean and the spread of its latents in its configuration."""
        vae = copy.deepcopy(self.vae).eval()
        mean, variance = self.statistics.running_mean, self.statistics.running_var
        vae.register_to_config(
            latents_mean=cast(Tensor, mean).tolist(),
            latents_std=cast(Tensor, variance).sqrt().tolist(),
        )
        return vae


def new_autoencoder(width: int = WIDTH, channels: int = 4) -> Any:
    """An AutoencoderKL of images (1, 28, 28) and latents (channels, 7, 7).

    Args:
        width: channels of the first of three levels, a multiple of 8 or less than 8; each further
            level has twice as many.
    """
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(width, 2 * width, 4 * width),
        latent_channels=channels,
        norm_num_groups=min(8, width),
        sample_size=28,
        scaling_factor=1.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def train_autoencoder(
    images: Tensor,
    config: TrainingConfig,
    out: Path,
    sigma: float = NOISE,
    width: int = WIDTH,
    init: Path | None = None,
    progress: bool = True,
) -> Autoencoder:
    """Train, or resume the training in ``out``; write model, picture, log and loss curve there.

    Args:
        images: uint8 (N, 28, 28).
        sigma: noise on the latents, whose variance is 1.
        width: channels at full size.
        init: folder of a trained autoencoder whose weights to start from.
    """
    torch.manual_seed(config.seed)
    vae = new_autoencoder(width) if init is None else load_autoencoder(init).vae
    task = Autoencoding((vae.config.latent_channels, 7, 7), sigma)
    data = FixedImages(images, torch.zeros(len(images), dtype=torch.int64))
    network = Noisy(vae.requires_grad_(True))
    trainer = Trainer(network, task, data, 0, config, out, {"width": width})

    def write(trained: nn.Module, folder: Path) -> None:
        write_network(cast(Noisy, trained).finished(), folder / MODEL)
        picture = draw_round_trip(folder / MODEL)
        write_atomically(folder / "samples.png", lambda file: picture.save(file, format="PNG"))
        plot_loss(trainer.losses, folder / "loss.png", f"Autoencoder, noise {sigma:g}")

    trainer.run(progress, write)
    return load_autoencoder(out / MODEL)


def draw_round_trip(folder: Path, columns: int = 10) -> Any:
    """Draw test digits, and what a trained autoencoder makes of them."""
    autoencoder = load_autoencoder(folder)
    digits = sample_digits()[0][:columns]
    return contact_sheet(
        {"digit": digits, "decoded": autoencoder.decode(autoencoder.encode(digits))}
    )
