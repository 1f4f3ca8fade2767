"""Train a network by regression, such as a time- and class-conditioned one on any path.

The objective is the same for DDPM and flow matching: draw t, noise the image to x_t, and regress
the network's output on ``a * x_0 + b * noise``.

Every random number of step k comes from a generator seeded by (seed, k), so a run that was killed
and resumed equals one that was not. The state is weights, moments and the step count only.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from composer.authoring import generator_of
from composer.writing import make_folder, remove_left_over, require_folder, write_atomically
from composer_lab.training.checkpoint import read_checkpoint, sole_writer, write_checkpoint
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import DataSource, as_x0
from composer_lab.training.interrupts import Interrupts
from composer_lab.training.objective import Batch, Task
from composer_lab.training.processes import Processes
from composer_lab.training.schedules import LR_SCHEDULES
from composer_lab.training.weights import require_sound, warm_average
from composer_plugins.backends.placement import computes_in_bf16

CHECKPOINT = "checkpoint.pt"
MODEL = "model"
"""The folder that a Writer writes the network into."""
Writer = Callable[[nn.Module, Path], None]
"""A function that writes a trained network, and its samples, into a folder."""

# What may change between a run and its resumption.
_FREE = ("device", "bf16", "checkpoint_every", "snapshots")


class Trainer:
    """A training loop whose whole state is one checkpoint.

    Args:
        model: called with the inputs that ``task`` makes.
        task: what to learn, such as an Objective on a path.
        data: pictures, or x_0, and labels below ``num_classes``.
        folder: folder of checkpoints and the log; training resumes a checkpoint found there.
        about: further settings that a checkpoint must have in order to be resumed.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        data: DataSource,
        num_classes: int,
        config: TrainingConfig,
        folder: str | Path,
        about: Mapping[str, object] | None = None,
    ) -> None:
        self.processes = Processes.launched(config.device)
        self.task = task
        self.config = config
        self.num_classes = num_classes
        self.data = data
        self.folder = Path(folder)
        self.about = dict(about or {})
        device = self.processes.device
        self.bf16 = computes_in_bf16(device) if config.bf16 is None else config.bf16
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = AveragedModel(
            self.model, avg_fn=functools.partial(warm_average, config.ema_decay), use_buffers=True
        )
        self.epoch_steps = len(data) // config.batch_size
        self.total_steps = config.epochs * self.epoch_steps
        if self.total_steps < 1:
            raise ValueError(
                f"batch_size must be at most the {len(data)} images, got {config.batch_size}. Use "
                "more images or a smaller batch."
            )
        if config.batch_size % self.processes.count:
            raise ValueError(
                f"batch_size must be a multiple of the {self.processes.count} processes, got "
                f"{config.batch_size}."
            )
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, betas=config.adam_betas, fused=True
        )
        self.scheduler = LR_SCHEDULES[config.lr_schedule](
            self.optimizer, config.learning_rate, config.epochs, self.epoch_steps
        )
        self.learner = self.processes.synchronised(self.model)
        self.step = 0
        self.losses: list[float] = []
        self.seconds = 0.0

    def run(self, progress: bool = True, write: Writer | None = None) -> nn.Module:
        """Train to the end, or resume the training in the folder; return the averaged network.

        Ctrl-C and SIGTERM stop it after the current step, which is saved first; a second signal
        stops it at once.

        Args:
            write: called with the averaged network after the epochs ``config.snapshots``, with a
                folder for each inside ``folder``, and at the end, with ``folder`` itself.
        """
        make_folder(self.folder)
        places = (self.folder, *map(self._snapshot, self.config.snapshots))
        folders = [folder for place in places for folder in (place, place / MODEL)]
        for folder in folders:
            require_folder(folder)
        with sole_writer(self.folder) if self.processes.main else nullcontext():
            if self.processes.main:
                for folder in folders:
                    remove_left_over(folder)
            self._resume()
            self._train(progress and self.processes.main, write)
            averaged = self.averaged()
            self._write(write, averaged, self.folder)
            return averaged

    def _train(self, shown: bool, write: Writer | None) -> None:
        """Take the remaining steps."""
        if shown and self.processes.count > 1:
            tqdm.write(f"{self.processes.count} processes share each batch")
        began, before = time.perf_counter(), self.seconds
        with (
            Interrupts() as interrupts,
            tqdm(total=self.total_steps, initial=self.step, disable=not shown, desc="train") as bar,
        ):
            for batch in self.batches(self.step, self.total_steps):
                self._take(batch)
                self.seconds = before + time.perf_counter() - began
                bar.update()
                bar.set_postfix(loss=f"{sum(self.losses[-100:]) / len(self.losses[-100:]):.4f}")
                stops = self.processes.any(interrupts.received is not None)
                self._keep(write, stops)
                if stops:
                    if shown:
                        tqdm.write(
                            f"stopped and saved at step {self.step} of {self.total_steps}; the "
                            "same command goes on from there"
                        )
                    interrupts.act()

    def _take(self, batch: Batch) -> None:
        """One step."""
        self.losses.append(self._update(batch))
        if not math.isfinite(self.losses[-1]):
            raise FloatingPointError(
                f"the loss became {self.losses[-1]} at step {self.step}. Lower the learning "
                "rate and start in a new folder."
            )
        self.step += 1

    def _keep(self, write: Writer | None, stops: bool) -> None:
        """Write the snapshot and the checkpoint due after a step; a stop makes a checkpoint due."""
        last = self.step == self.total_steps
        saves = stops or last or self.step % self.config.checkpoint_every == 0
        if saves:
            require_sound(self.model, self.step)
        epoch, within = divmod(self.step, self.epoch_steps)
        if within == 0 and epoch in self.config.snapshots:
            self._write(write, self.averaged(), self._snapshot(epoch))
        # After the snapshot, so that a snapshot that a kill interrupts is written again.
        if saves:
            self._save()

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps ``first`` to ``last``, each a function of (seed, step) alone."""
        for step in range(first, last):
            pictures, labels = self.data.batch(step, self.config.batch_size, self.config.seed)
            yield self._batch(pictures, labels, generator_of(self.config.seed, step))

    def averaged(self) -> nn.Module:
        """A copy of the averaged network with batch-norm statistics measured on its own outputs.

        Averaged weights have other activations than the networks that were averaged (Izmailov et
        al. 2018, arXiv 1803.05407, section 3.2).
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
                model(*batch.inputs)
        for norm in norms:
            norm.momentum = 0.1
        return model.eval()

    def _batch(self, pictures: Tensor, labels: Tensor, generator: torch.Generator) -> Batch:
        x0 = as_x0(pictures)
        batch = self.task.batch(x0, labels, self.num_classes, self.config, generator)
        device = self.processes.device
        x, *others = batch.inputs
        return Batch(
            (x.to(device, memory_format=torch.channels_last), *(v.to(device) for v in others)),
            batch.target.to(device),
        )

    def _update(self, batch: Batch) -> float:
        self.learner.train()
        *inputs, target = self.processes.part(*batch.inputs, batch.target)
        with torch.autocast(target.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.learner(*inputs)
        loss = nn.functional.mse_loss(output.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.ema.update_parameters(self.model)
        return self.processes.mean(loss)

    def _identity(self) -> dict[str, Any]:
        """The settings that a checkpoint of this run must equal."""
        config = asdict(self.config)
        return {
            **{name: value for name, value in config.items() if name not in _FREE},
            **self.about,
            "images": len(self.data),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **self.task.identity(),
        }

    def _snapshot(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:03}"

    def _write(self, write: Writer | None, network: nn.Module, folder: Path) -> None:
        require_sound(network, self.step)
        if write is not None and self.processes.main:
            write(network, make_folder(folder))

    def _save(self) -> None:
        if not self.processes.main:
            return
        state = {
            "identity": self._identity(),
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
            "bf16": self.bf16,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        write_checkpoint(self.folder / CHECKPOINT, state)
        self._write_log()

    def _write_log(self) -> None:
        log = {**self._identity(), "bf16": self.bf16, "device": str(self.processes.device)}
        log |= {"steps": self.step, "seconds": round(self.seconds, 1)}
        log["loss"] = [round(v, 5) for v in self.losses]
        write_atomically(self.folder / "log.json", lambda path: path.write_text(json.dumps(log)))

    def _resume(self) -> None:
        path, device = self.folder / CHECKPOINT, self.processes.device
        state = read_checkpoint(path, self._identity(), device)
        if state is None:
            return
        if self.config.bf16 is None:  # a resumed run keeps its setting, also on another machine
            self.bf16 = state.get("bf16", False)
        self.step, self.losses = state["step"], state["losses"]
        self.seconds = state["seconds"]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.processes.main:
            self._write_log()  # the run may have been killed between the checkpoint and its log
