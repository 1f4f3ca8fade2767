"""Schedules of the learning rate, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, StepLR


def one_cycle(optimizer: Optimizer, peak: float, epochs: int, steps: int) -> LRScheduler:
    """Up to ``peak`` over a tenth of the training, then down along a cosine to almost nothing."""
    total = epochs * steps + 1
    return OneCycleLR(optimizer, peak, total_steps=total, pct_start=0.1, cycle_momentum=False)


def exponential(optimizer: Optimizer, start: float, epochs: int, steps: int) -> LRScheduler:
    """From ``start`` down to a tenth of it, by 0.1^(1/epochs) after each epoch."""
    return StepLR(optimizer, step_size=steps, gamma=0.1 ** (1 / epochs))


def constant(optimizer: Optimizer, rate: float, epochs: int, steps: int) -> LRScheduler:
    """``rate`` throughout."""
    return ConstantLR(optimizer, factor=1.0)


LR_SCHEDULES: dict[str, Callable[[Optimizer, float, int, int], LRScheduler]] = {
    "one-cycle": one_cycle,
    "exponential": exponential,
    "constant": constant,
}
"""{name: function of optimizer, learning rate, epochs and steps per epoch}; stepped every step."""
