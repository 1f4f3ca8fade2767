"""The settings of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingConfig:
    """Hyper-parameters; one-cycle learning rate with peak ``learning_rate``.

    Args:
        class_drop: probability that a label is replaced by "unconditional".
        bf16: autocast to bfloat16. Slower than float32 on processors without bf16 arithmetic.
        logit_normal: (mean, spread): train at times whose logit, in units of the clock, is normal,
            more often in the middle of the path, where images are decided (Esser et al. 2024,
            arXiv 2403.03206, section 3.1). None for uniform times.
        started_from: where the initial weights came from, for the log.
        checkpoint_every: steps between checkpoints; what a kill costs is repeated, never lost.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    ema_decay: float = 0.999
    class_drop: float = 0.1
    seed: int = 0
    logit_normal: tuple[float, float] | None = None
    started_from: str = "scratch"
    bf16: bool = False
    device: str = "cpu"
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.checkpoint_every < 1:
            raise ValueError("epochs, batch_size and checkpoint_every must be at least 1")
        if not 0 <= self.class_drop <= 1 or not 0 <= self.ema_decay < 1:
            raise ValueError("class_drop must be in [0, 1] and ema_decay in [0, 1)")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.logit_normal is not None:
            mean, spread = self.logit_normal
            if not (math.isfinite(mean) and 0 < spread < math.inf):
                raise ValueError(
                    "logit_normal needs a finite mean and a positive spread, got "
                    f"{mean} and {spread}"
                )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {self.seed}")
