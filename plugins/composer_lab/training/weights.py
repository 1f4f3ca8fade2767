"""The weights of a training: their average, and checks that they are finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def require_sound(model: nn.Module, step: int) -> None:
    """Raise a FloatingPointError for weights that diverged, before they replace good ones."""
    values = (v for v in model.state_dict().values() if v.is_floating_point())
    if not all(torch.isfinite(value).all() for value in values):
        raise FloatingPointError(
            f"a weight became NaN or Inf by step {step}. Lower the learning rate and start in a "
            "new folder."
        )


def half_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights for a file: in float16, on the CPU.

    Raises:
        OverflowError: a weight is beyond the range of float16.
    """
    halves = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    for name, value in halves.items():
        if not torch.isfinite(value).all():
            raise OverflowError(
                f"{name} must be finite and at most 65504, as float16 requires. Lower the "
                "learning rate and start in a new folder."
            )
    return halves


def warm_average(decay: float, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Exponential average whose decay grows as (1 + n) / (10 + n) up to ``decay``, so that the
    initial weights do not remain in the average of a short run."""
    # Counters such as batch norm's are whole numbers, which must not be averaged.
    if not average.is_floating_point():
        return current
    now = min(decay, (1 + int(count)) / (10 + int(count)))
    return torch.lerp(current, average, now)
