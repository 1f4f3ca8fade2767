"""The scale of a model that was distilled from guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import finite
from composer.authoring import guidance_of
from composer.errors import shown


@dataclass(frozen=True, eq=False)
class DistilledGuidance(Plugin):
    """Set the scale of a guidance-distilled model, one number per image.

    Such a model, for example Flux.1 dev, computes in one row what guidance computes from two. Its
    scale is an input of the network. Without this plugin it is the scale that the model was loaded
    with.

    Meng et al. 2023, "On Distillation of Guided Diffusion Models", arXiv 2210.03142.

    Args:
        scale: one for all seeds, or a list with one per seed.

    Raises:
        TypeError, ValueError: not finite; or, in a Sampler, a model that takes no scale.
    """

    unique = "set the scale of a distilled model"

    scale: float | Sequence[float]

    def __post_init__(self) -> None:
        if not self._scales:
            raise ValueError(
                "DistilledGuidance: scale must be a number, or one per seed, got an empty list."
            )

    @property
    def _scales(self) -> list[float]:
        given = self.scale if isinstance(self.scale, Sequence) else [self.scale]
        return [finite(scale, "DistilledGuidance: scale") for scale in given]

    @hookimpl
    def check(self, stack: Stack) -> None:
        if guidance_of(stack.backend) is None:
            raise ValueError(
                f"DistilledGuidance: the model must take a scale as its input, got "
                f"{shown(type(stack.backend).__name__)}, which takes none. Use CFG(scale)."
            )

    @hookimpl
    def start(self, state: State) -> None:
        scales = torch.tensor(self._scales, dtype=torch.float32).to(state.backend.device)
        state.beside["guidance"] = state.each(scales, "DistilledGuidance")
