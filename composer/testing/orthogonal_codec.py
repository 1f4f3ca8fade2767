"""A latent backend whose coder is exact: what runs on its latents equals what runs on pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from composer._checks import checked_backend
from composer.arguments import integer
from composer.backend_wrapper import BackendWrapper
from composer.batch import Batch, Output
from composer.latents import to_images
from composer.markers import hookimpl
from composer.protocols import Backend, State


@dataclass(frozen=True, eq=False, repr=False)
class OrthogonalCodecBackend(BackendWrapper):
    """The model of ``inner`` on the latents z = U pixel_unshuffle(x), with U orthogonal.

    The coder E(x) = U pixel_unshuffle(x) is linear, E^-1 = E^T, and it keeps lengths. So noise of
    latents is noise of pixels, and the prediction at z is E of inner's at E^-1 z. It does not
    commute with views.

    Args:
        inner: a backend of pixels (C, H, W) that answers no hooks.
        factor: f; latents are (C f^2, H / f, W / f).
        seed: of the random U.

    Raises:
        ValueError: H or W is not a multiple of f.
    """

    inner: Backend
    factor: int = 2
    seed: int = 0
    _matrix: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", checked_backend(self.inner))
        factor = integer(self.factor, "OrthogonalCodecBackend: factor", 1)
        channels, height, width = self.inner.shape
        if height % factor or width % factor:
            raise ValueError(
                f"OrthogonalCodecBackend: factor must divide the sides of {height}x{width} images, "
                f"got {factor}."
            )
        size = channels * factor**2
        generator = torch.Generator().manual_seed(self.seed)
        square = torch.randn(size, size, generator=generator, dtype=torch.float64)
        matrix = torch.linalg.qr(square).Q.to(self.inner.device, self.inner.dtype)
        object.__setattr__(self, "_matrix", matrix)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latents."""
        channels, height, width = self.inner.shape
        return channels * self.factor**2, height // self.factor, width // self.factor

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of the images."""
        return self.inner.shape

    def encode_image(self, x: Tensor) -> Tensor:
        """Latents (B, *shape) of images x (B, C, H, W): U pixel_unshuffle(x)."""
        return self._mixed(self._matrix, pixel_unshuffle(x, self.factor))

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) of latents z (B, *shape): pixel_shuffle(U^T z)."""
        return pixel_shuffle(self._mixed(self._matrix.T, z), self.factor)

    @hookimpl(trylast=True)  # what other plugins do at the end, they do to the latents
    def finish(self, state: State) -> None:
        state.x = to_images(state.backend, state.x)  # the run's, which may wrap this one

    def evaluate(self, batch: Batch) -> Output:
        output = self.inner.evaluate(batch.replace(x=self.decode(batch.x)))
        return Output(self.encode_image(output.prediction))

    @staticmethod
    def _mixed(matrix: Tensor, z: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", matrix, z)
