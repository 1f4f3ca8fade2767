"""The scale of a model that was distilled from guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import finite_each
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
        scale: one for all seeds, or a list or tensor (S,) of one per seed.

    Raises:
        TypeError, ValueError: not finite; or, in a Sampler, a model that takes no scale.
    """

    unique = "set the scale of a distilled model"

    one_a_seed = ("scale",)

    scale: float | Sequence[float] | Tensor

    def __post_init__(self) -> None:
        finite_each(self.scale, "DistilledGuidance: scale")

    @hookimpl
    def check(self, stack: Stack) -> None:
        if guidance_of(stack.backend) is None:
            raise ValueError(
                f"DistilledGuidance: the model must take a scale as its input, got "
                f"{shown(type(stack.backend).__name__)}, which takes none. Use CFG(scale)."
            )

    @hookimpl
    def start(self, state: State) -> None:
        scales = torch.as_tensor(self.scale, dtype=torch.float32).reshape(-1)
        scales = scales.to(state.backend.device)
        state.beside["guidance"] = state.each(scales, "DistilledGuidance")
