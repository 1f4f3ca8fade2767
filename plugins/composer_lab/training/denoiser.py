"""The one-step denoiser: a UNet without time that estimates x_0 from x_0 + noise of one level.

Trained by mean squared error, it approaches E[x_0 | z], the mean of all images that the noisy one
may come from. It does less well at other levels than its own: :func:`sweep`. Trained on pure noise,
which is independent of x_0, it approaches E[x_0], the mean digit, for every input.

``sigma`` is for pixels in [0, 1], as in the course. Images here span [-1, 1], so their noise has
twice that standard deviation: :func:`noised`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from composer.arguments import finite, switch
from composer.contact_sheet import contact_sheet
from composer_plugins.backends.mnist.backend import read_unet

if TYPE_CHECKING:  # diffusers takes a second to import
    from PIL import Image

    from composer_plugins.backends.mnist.unet import MnistUNet

DESCRIPTION = "denoiser.json"
SIGMAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class FixedNoise:
    """A denoiser's inputs as the path of a Trainer: one level of noise at every time.

    Args:
        sigma: standard deviation of the noise, for pixels in [0, 1].
        pure_noise: use N(0, I) alone, without an image.
    """

    sigma: float = 0.5
    pure_noise: bool = False

    def __post_init__(self) -> None:
        if finite(self.sigma, "sigma") < 0:
            raise ValueError(f"sigma must be at least 0, got {self.sigma}.")
        switch(self.pure_noise, "pure_noise")

    def __str__(self) -> str:
        return "noise alone" if self.pure_noise else f"sigma {self.sigma:g}"

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = (0.0, 1.0) if self.pure_noise else (1.0, 2 * self.sigma)
        return torch.full_like(t, alpha), torch.full_like(t, sigma)

    def training_times(self, places: Tensor) -> Tensor:
        return torch.zeros_like(places)

    def unit_time(self, t: Tensor) -> Tensor:
        return t


class Denoiser(nn.Module):
    """A trained denoiser, rearranged for inference.

    Args:
        unet: a MnistUNet of conditioning "none".
        noise: the noise it was trained on.
    """

    def __init__(self, unet: MnistUNet, noise: FixedNoise) -> None:
        from composer_plugins.backends.mnist.folded import FoldedUNet  # noqa: PLC0415

        super().__init__()
        self.network, self.noise = FoldedUNet(unet), noise

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Noisy images (B, 1, 28, 28) -> the estimate of the clean ones, approximately in [-1,
        1]."""
        nothing = torch.zeros(len(x), device=x.device)  # neither time nor class
        return cast(Tensor, self.network(x, nothing, nothing.long()).contiguous())

    def show(self, x0: Tensor, seed: int = 0) -> Tensor:
        """Images (B, 1, 28, 28) in [-1, 1] -> noised, or replaced by noise, as in training."""
        times = torch.zeros(len(x0))
        alpha, sigma = (v[:, None, None, None] for v in self.noise.alpha_sigma(times))
        return alpha * x0 + sigma * _noise(x0, seed)


def load_denoiser(folder: str | Path | None = None, pure_noise: bool = False) -> Denoiser:
    """The denoiser of a folder model/ that `composer train denoiser` wrote.

    Args:
        folder: None for the shipped denoisers.
        pure_noise: load the shipped denoiser that was trained on noise alone.
    """
    if folder is not None:
        return _read(Path(folder))
    name = "denoiser-pure-noise" if pure_noise else "denoiser"
    with as_file(files(__package__) / "weights" / name) as shipped:
        return _read(shipped)


class Denoised(NamedTuple):
    """Noisy images and the denoiser's estimates, (B, 1, 28, 28) each."""

    noisy: Tensor
    estimate: Tensor


def noised(x0: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """Images (B, 1, 28, 28) in [-1, 1] plus noise of ``sigma``, for pixels in [0, 1].

    The noise of one seed is the same at every sigma, so that only its strength changes.
    """
    return x0 + 2 * sigma * _noise(x0, seed)


def sweep(
    denoiser: Callable[[Tensor], Tensor],
    x0: Tensor,
    sigmas: Sequence[float] = SIGMAS,
    seed: int = 0,
) -> dict[float, Denoised]:
    """The out-of-distribution test: the same images under noise of each of ``sigmas``."""
    noisy = {sigma: noised(x0, sigma, seed) for sigma in sigmas}
    return {sigma: Denoised(z, denoiser(z)) for sigma, z in noisy.items()}


def draw_sweep(found: Mapping[float, Denoised], scale: int = 3) -> Image.Image:
    """A picture of :func:`sweep`: one column per sigma; per image a noisy and a denoised row."""
    pairs = [torch.stack([noisy, estimate], 1) for noisy, estimate in found.values()]
    images = torch.stack(pairs, 2)  # (B, 2, sigmas, 1, 28, 28)
    rows = {
        f"{number} {what}": row
        for number, pair in enumerate(images, 1)
        for what, row in zip(("noisy", "denoised"), pair, strict=True)
    }
    return contact_sheet(rows, scale, ",".join(f"sigma {sigma:g}" for sigma in found))


def _noise(x0: Tensor, seed: int) -> Tensor:
    return torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)


def _read(folder: Path) -> Denoiser:
    unet = read_unet(folder, DESCRIPTION, "denoiser")
    try:
        noise = FixedNoise(**json.loads((folder / DESCRIPTION).read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder / DESCRIPTION} is damaged ({error}). Start its training again."
        ) from error
    return Denoiser(unet, noise)
