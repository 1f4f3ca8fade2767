"""The weights of a training: their average, and whether they are sound."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def require_sound(model: nn.Module, step: int) -> None:
    """Refuse weights that diverged, before they take the place of good ones."""
    values = (v for v in model.state_dict().values() if v.is_floating_point())
    if not all(torch.isfinite(value).all() for value in values):
        raise FloatingPointError(
            f"a weight became NaN or Inf by step {step}; lower the learning rate and start in a "
            "new folder"
        )


def half_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are written: in float16, on the CPU.

    Raises:
        OverflowError: one is larger than float16 holds.
    """
    halves = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    for name, value in halves.items():
        if not torch.isfinite(value).all():
            raise OverflowError(
                f"{name} is not finite, or larger than the 65504 that float16 holds; lower the "
                "learning rate and start in a new folder"
            )
    return halves


def warm_average(decay: float, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Exponential average whose decay grows as (1 + n) / (10 + n) up to ``decay``, so that a short
    run does not remember the weights it started from."""
    # Counters such as batch norm's are whole numbers, which an average would round away.
    if not average.is_floating_point():
        return current
    now = min(decay, (1 + int(count)) / (10 + int(count)))
    return torch.lerp(current, average, now)
