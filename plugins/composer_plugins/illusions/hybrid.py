"""Hybrid images: one thing from afar, another from nearby."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from composer import Estimate, Plugin, Request, Stack, hookimpl
from composer.arguments import finite_list, positive
from composer.authoring import Part, require_coder, resized
from composer.errors import shown
from composer_plugins.illusions.components import decompose
from composer_plugins.illusions.decompositions import Bands


@dataclass(frozen=True, eq=False)
class Hybrid(Plugin):
    """Make low frequencies follow one condition and high frequencies another.

    With G a Gaussian blur, the estimate is G f(x, low) + (I - G) f(x, high). A latent model decodes
    both clean images, mixes them in pixels, and encodes the mixture.

    Geng, Park & Owens 2024, "Factorized Diffusion", arXiv 2404.11615; after Oliva, Torralba &
    Schyns 2006, "Hybrid Images".

    Args:
        low: the condition seen from afar.
        high: the condition seen from nearby. Either may be a plugin, such as an Anagram.
        sigma: standard deviation of the blur, in pixels of an image 64 high; scales with the image.
    """

    low: Any
    high: Any
    sigma: float = 2.0

    def __post_init__(self) -> None:
        positive(self.sigma, "Hybrid: sigma")

    @property
    def conditions(self) -> tuple[Any, ...]:
        return self.low, self.high

    @property
    def finest(self) -> Any:
        """The condition that the last, plain stage of a cascade follows."""
        return self.high

    @property
    def parts(self) -> tuple[Part, ...]:
        """Linear maps that sum to the identity, in the order of the conditions."""
        return Bands((self.sigma,)).parts

    def resized(self, height: int, width: int) -> Self:
        low, high = (resized(condition, height, width) for condition in self.conditions)
        return replace(self, low=low, high=high)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "Hybrid")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        return (yield from decompose(request, self.parts, self.conditions))


@dataclass(frozen=True, eq=False)
class TripleHybrid(Plugin):
    """Three bands: high = e - G1 e, mid = G1 e - G2 G1 e, low = G2 G1 e.

    Args:
        low, mid, high: one condition per band.
        sigmas: of G1 and G2, in pixels of an image 64 high.
    """

    low: Any
    mid: Any
    high: Any
    sigmas: Sequence[float] = (1.0, 2.0)

    def __post_init__(self) -> None:
        if len(finite_list(self.sigmas, "TripleHybrid: sigmas")) != 2:
            raise ValueError(f"TripleHybrid: sigmas must be two numbers, got {shown(self.sigmas)}.")
        for sigma in self.sigmas:
            positive(sigma, "TripleHybrid: sigmas")

    @property
    def conditions(self) -> tuple[Any, ...]:
        return self.low, self.mid, self.high

    @property
    def finest(self) -> Any:
        """The condition that the last, plain stage of a cascade follows."""
        return self.high

    @property
    def parts(self) -> tuple[Part, ...]:
        """Linear maps that sum to the identity, in the order of the conditions."""
        return Bands(tuple(self.sigmas)).parts

    def resized(self, height: int, width: int) -> Self:
        low, mid, high = (resized(condition, height, width) for condition in self.conditions)
        return replace(self, low=low, mid=mid, high=high)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "TripleHybrid")

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        return (yield from decompose(request, self.parts, self.conditions))
