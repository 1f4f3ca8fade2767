"""The settings of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from composer import UnknownNameError
from composer_plugins.training_schedules import LR_SCHEDULES


@dataclass(frozen=True)
class TrainingConfig:
    """Hyper-parameters of Adam, its data and its averaging.

    Args:
        lr_schedule: how ``learning_rate`` changes: a key of LR_SCHEDULES.
        ema_decay: of the average of the weights; 0 keeps the last weights instead.
        class_drop: probability that a label is replaced by "unconditional".
        bf16: autocast to bfloat16; None where the device computes in it. Slower than float32 on
            processors that do not.
        logit_normal: (mean, spread): train at times whose logit, in units of the clock, is normal,
            more often in the middle of the path, where images are decided (Esser et al. 2024,
            arXiv 2403.03206, section 3.1). None for uniform times.
        started_from: where the initial weights came from, for the log.
        checkpoint_every: steps between checkpoints; what a kill costs is repeated, never lost.
        snapshots: epochs after which the network is written, as it is then.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    ema_decay: float = 0.999
    class_drop: float = 0.1
    seed: int = 0
    logit_normal: tuple[float, float] | None = None
    started_from: str = "scratch"
    bf16: bool | None = None
    device: str = "cpu"
    checkpoint_every: int = 100
    lr_schedule: str = "one-cycle"
    adam_betas: tuple[float, float] = (0.9, 0.99)
    snapshots: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.checkpoint_every < 1:
            raise ValueError("epochs, batch_size and checkpoint_every must be at least 1")
        if not 0 <= self.class_drop <= 1 or not 0 <= self.ema_decay < 1:
            raise ValueError("class_drop must be in [0, 1] and ema_decay in [0, 1)")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.lr_schedule not in LR_SCHEDULES:
            raise UnknownNameError("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas must be in [0, 1), got {self.adam_betas}")
        if any(epoch < 1 for epoch in self.snapshots):
            raise ValueError(f"snapshots must be of epochs from 1 on, got {self.snapshots}")
        if self.logit_normal is not None:
            mean, spread = self.logit_normal
            if not (math.isfinite(mean) and 0 < spread < math.inf):
                raise ValueError(
                    "logit_normal needs a finite mean and a positive spread, got "
                    f"{mean} and {spread}"
                )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {self.seed}")
