"""The controlled half of RF inversion: a run that is pulled towards a given image."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite, interval, within
from composer.authoring import (
    image_shape_of,
    is_latent,
    once,
    short_repr,
    to_latents,
)
from composer.images import Fit, ImageLike, read_picture
from composer_plugins.editing.given import check_given, hold_given, resized_given


@dataclass(frozen=True, eq=False, repr=False)
class RFInversion(Plugin):
    """Pull the estimate towards an image at some noise levels.

    The paper's controlled flow is (1 - eta) v + eta v', where v' leads straight to the image y. As
    v is linear in x_0 at a given x, on every path this is

        x_0 <- (1 - eta) x_0 + eta y.

    Begin with the noise of :func:`invert`, whose ``controller`` is the other half. It is outermost
    wherever it stands in the list, and leaves the law on purpose. A latent model is pulled towards
    the latents of the image.

    Rout et al. 2024, "Semantic Image Inversion and Editing using Rectified Stochastic Differential
    Equations", arXiv 2410.10792, equation 15.

    Args:
        image: as for SDEdit; one, or one per seed.
        eta: in [0, 1]; 1 returns the image.
        levels: noise levels (low, high) within [0, 1] at which to pull; low keeps details for the
            prompt.
        fit: as for SDEdit.
    """

    __repr__ = short_repr

    obeys_law = False
    holds_image = True
    unique = "pull towards an image"

    image: ImageLike
    eta: float = 0.8
    levels: Sequence[float] = (0.7, 1.0)
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self)
        interval(self.levels, "RFInversion: levels")
        if not 0 <= finite(self.eta, "RFInversion: eta") <= 1:
            raise ValueError(f"RFInversion: eta must be in [0, 1], got {self.eta}.")

    def resized(self, height: int, width: int) -> Self:
        return resized_given(self, height, width)

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_given(self, stack.backend)

    @hookimpl(tryfirst=True)
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        (estimate,) = yield [request]
        if not within(request.noise_level, self.levels):
            return estimate
        image = self._latents(request)
        return estimate.with_x0(estimate.x0.lerp(image, self.eta))

    def _latents(self, request: Request) -> Tensor:
        """The image or its latents, for each image of the request."""
        backend, x = request.backend, request.x
        if is_latent(backend):
            image = once(partial(self._encoded, request), self, backend, x.dtype, x.device)
        else:
            _, channels, height, width = x.shape
            image = read_picture(self.image, (channels, height, width), self.fit).to(x)
        return image if len(image) == 1 else image[list(request.origin or range(len(x)))]

    def _encoded(self, request: Request) -> Tensor:
        image = read_picture(self.image, image_shape_of(request.backend), self.fit)
        return to_latents(request.backend, image.to(request.x))
