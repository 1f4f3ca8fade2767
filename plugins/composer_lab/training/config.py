"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from composer import UnknownNameError
from composer.arguments import finite, finite_list, integer, positive, sequence, switch
from composer_lab.training.schedules import LR_SCHEDULES


@dataclass(frozen=True)
class TrainingConfig:
    """Hyper-parameters of Adam, its data and its averaging.

    Args:
        lr_schedule: a key of LR_SCHEDULES, which changes ``learning_rate`` over the run.
        ema_decay: decay of the average of the weights; 0 takes the last weights instead.
        class_drop: probability that a label is replaced by "unconditional".
        bf16: autocast to bfloat16; None for devices that compute in bfloat16. On other processors
            it is slower than float32.
        logit_normal: (mean, spread): train at times whose logit, in units of the clock, is normal,
            more often in the middle of the path, where images are decided (Esser et al. 2024,
            arXiv 2403.03206, section 3.1). None for uniform times.
        started_from: where the initial weights came from, for the log.
        checkpoint_every: steps between checkpoints; a killed run repeats the steps since the last
            one.
        snapshots: epochs after which to write the network.
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
        for name in ("epochs", "batch_size", "checkpoint_every"):
            integer(getattr(self, name), name, least=1)
        if integer(self.seed, "seed", least=0) >= 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {self.seed}.")
        positive(self.learning_rate, "learning_rate")
        if not 0 <= finite(self.class_drop, "class_drop") <= 1:
            raise ValueError(f"class_drop must be in [0, 1], got {self.class_drop}.")
        _decay(self.ema_decay, "ema_decay")
        for beta in _pair(self.adam_betas, "adam_betas"):
            _decay(beta, "each of adam_betas")
        if self.logit_normal is not None:
            _, spread = _pair(self.logit_normal, "logit_normal")
            positive(spread, "the spread of logit_normal")
        for epoch in sequence(self.snapshots, "snapshots"):
            integer(epoch, "each of snapshots", least=1)
        if self.lr_schedule not in LR_SCHEDULES:
            raise UnknownNameError("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        if self.bf16 is not None:
            switch(self.bf16, "bf16")


def _pair(values: object, name: str) -> tuple[float, float]:
    numbers = finite_list(values, name)
    if len(numbers) != 2:
        raise ValueError(f"{name} must be two numbers, got {values!r}.")
    return numbers[0], numbers[1]


def _decay(value: object, name: str) -> None:
    if not 0 <= finite(value, name) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}.")
