"""Train a time- and class-conditioned network on any path, with any prediction type.

The objective is the same for DDPM and flow matching: draw t, noise the image to x_t, and regress
the network's output on ``a * x_0 + b * noise``.

Every random number of step k comes from a generator seeded by (seed, k), so a run that was killed
and resumed is the run that was not: nothing but weights, moments and the step count is state.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from composer.predictions import Prediction
from composer.schedules import Schedule
from composer_plugins.training_config import TrainingConfig
from composer_plugins.training_data import DataSource, generator_of
from composer_plugins.writing import write_atomically

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Objective:
    """What is learnt: a path and the row (a, b) of the prediction on it."""

    schedule: Schedule
    prediction: Prediction


@dataclass(frozen=True)
class Batch:
    """One step's inputs and regression target; x and target (B, C, H, W), the rest (B,)."""

    x: Tensor
    times: Tensor
    labels: Tensor
    target: Tensor


def stratified(
    count: int, generator: torch.Generator, logit_normal: tuple[float, float] | None = None
) -> Tensor:
    """(count,) places in [0, 1], one from each of ``count`` equally likely parts."""
    draws = torch.rand(count, generator=generator, dtype=torch.float64)
    places = (torch.arange(count) + draws) / count
    if logit_normal is None:
        return places
    mean, spread = logit_normal
    # A draw of exactly 0 has the quantile 0 too: sigmoid(-inf).
    return torch.sigmoid(mean + spread * torch.special.ndtri(places))


class Trainer:
    """The training loop as an object whose whole state is one checkpoint.

    Args:
        model: called as model(x, times, labels); the label ``num_classes`` means unconditional.
        data: pictures in [0, 255] and labels below ``num_classes``.
        folder: where checkpoints and the log go; a checkpoint found there is resumed.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: DataSource,
        num_classes: int,
        config: TrainingConfig,
        folder: str | Path,
    ) -> None:
        self.objective = objective
        self.config = config
        self.num_classes = num_classes
        self.data = data
        self.folder = Path(folder)
        self.model = model.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = AveragedModel(
            self.model, avg_fn=functools.partial(warm_average, config.ema_decay), use_buffers=True
        )
        self.total_steps = config.epochs * (len(data) // config.batch_size)
        if self.total_steps < 1:
            raise ValueError(f"{len(data)} images do not fill one batch of {config.batch_size}")
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            config.learning_rate,
            total_steps=self.total_steps + 1,
            pct_start=0.1,
            cycle_momentum=False,
        )
        self.step = 0
        self.losses: list[float] = []
        self.seconds = 0.0

    def run(self, progress: bool = True) -> nn.Module:
        """Train to the end, resuming what the folder holds; returns the averaged network."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        bar = tqdm(total=self.total_steps, initial=self.step, disable=not progress, desc="train")
        began, before = time.perf_counter(), self.seconds
        for batch in self.batches(self.step, self.total_steps):
            self.losses.append(self._update(batch))
            if not math.isfinite(self.losses[-1]):
                raise FloatingPointError(
                    f"the loss became {self.losses[-1]} at step {self.step}; lower the learning "
                    "rate and start in a new folder"
                )
            self.step += 1
            self.seconds = before + time.perf_counter() - began
            bar.update()
            bar.set_postfix(loss=f"{sum(self.losses[-100:]) / len(self.losses[-100:]):.4f}")
            if self.step % self.config.checkpoint_every == 0 or self.step == self.total_steps:
                self._save()
        bar.close()
        return self.averaged()

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps ``first`` to ``last``, each a function of (seed, step) alone."""
        for step in range(first, last):
            pictures, labels = self.data.batch(step, self.config.batch_size, self.config.seed)
            yield self._batch(pictures, labels, generator_of(self.config.seed, step))

    def averaged(self) -> nn.Module:
        """A copy of the averaged network with batch-norm statistics measured on its own outputs.

        An average of weights has other activations than any of the networks averaged
        (Izmailov et al. 2018, arXiv 1803.05407, section 3.2).
        """
        model = copy.deepcopy(self.ema.module)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        model.train()
        batches = self.batches(0, min(100, self.total_steps) if norms else 0)
        with torch.no_grad():
            for batch in batches:
                model(batch.x, batch.times, batch.labels)
        for norm in norms:
            norm.momentum = 0.1
        return model.eval()

    def _batch(self, pictures: Tensor, labels: Tensor, generator: torch.Generator) -> Batch:
        x0 = pictures.float() / 127.5 - 1
        places = stratified(len(x0), generator, self.config.logit_normal)
        times = self.objective.schedule.training_times(places)
        noise = torch.randn(x0.shape, generator=generator)
        dropped = torch.rand(len(x0), generator=generator) < self.config.class_drop
        labels = labels.masked_fill(dropped, self.num_classes)
        alpha, sigma = (
            v.float()[:, None, None, None] for v in self.objective.schedule.alpha_sigma(times)
        )
        target = self.objective.prediction.target(x0, noise, alpha, sigma)
        device = self.config.device
        return Batch(
            (alpha * x0 + sigma * noise).to(device, memory_format=torch.channels_last),
            self.objective.schedule.unit_time(times).float().to(device),
            labels.to(device),
            target.to(device),
        )

    def _update(self, batch: Batch) -> float:
        self.model.train()
        device = torch.device(self.config.device).type
        with torch.autocast(device, torch.bfloat16, enabled=self.config.bf16):
            output = self.model(batch.x, batch.times, batch.labels)
        loss = nn.functional.mse_loss(output.float(), batch.target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.ema.update_parameters(self.model)
        return loss.item()

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to belong to this run."""
        config = asdict(self.config)
        for free in ("device", "bf16", "checkpoint_every"):
            del config[free]
        return {
            **config,
            "images": len(self.data),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "schedule": type(self.objective.schedule).__name__,
            "prediction": self.objective.prediction.name,
        }

    def _save(self) -> None:
        state = {
            "identity": self._identity(),
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        write_atomically(self.folder / CHECKPOINT, lambda path: torch.save(state, path))
        log = {**self._identity(), "steps": self.step, "seconds": round(self.seconds, 1)}
        log["loss"] = [round(v, 5) for v in self.losses]
        write_atomically(self.folder / "log.json", lambda path: path.write_text(json.dumps(log)))

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.config.device, weights_only=True)
            theirs = state["identity"]
        except Exception as error:  # reading junk raises whatever the junk looks like
            raise ValueError(f"{path} is no intact checkpoint; remove it to start anew") from error
        ours = self._identity()
        if differing := sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k)):
            raise ValueError(
                f"{path} belongs to another run, which differs in {', '.join(differing)}; choose "
                "another folder, or the same settings to resume"
            )
        self.step, self.losses = state["step"], state["losses"]
        self.seconds = state["seconds"]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def warm_average(decay: float, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Exponential average whose decay grows as (1 + n) / (10 + n) up to ``decay``, so that a short
    run does not remember the weights it started from."""
    # Counters such as batch norm's are whole numbers, which an average would round away.
    if not average.is_floating_point():
        return current
    now = min(decay, (1 + int(count)) / (10 + int(count)))
    return torch.lerp(current, average, now)
