"""A training in one process, or in several that share each batch, one per GPU.

``accelerate launch`` starts several processes; no other option is needed. Each draws the whole
batch of a step, which is a function of (seed, step), and learns from its part; the gradients are
averaged. So the weights equal those of one process up to rounding, except with batch norm, whose
statistics are of each process's part during training (those of the averaged network are measured
again).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from composer.named import device_of


@dataclass(frozen=True, eq=False)
class Processes:
    """The processes of a training, and the index of this one.

    Args:
        device: device of this process.
        accelerator: accelerate's Accelerator; None for a single process.
    """

    device: torch.device
    accelerator: Any = None

    @classmethod
    def launched(cls, device: str) -> Processes:
        """The processes that ``accelerate launch`` or torchrun started, this one included."""
        place = device_of(device)
        count = os.environ.get("WORLD_SIZE", "1")
        if count == "1":
            return cls(place)
        if not count.isdecimal():
            raise ValueError(
                f"WORLD_SIZE must be the number of processes, got {count!r}. Start them by "
                "`accelerate launch`, or unset it."
            )
        try:
            from accelerate import Accelerator  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise ValueError(
                "Training in several processes needs accelerate. Install diffusion-composer[train]."
            ) from error
        # The Trainer casts itself.
        accelerator = Accelerator(cpu=place.type == "cpu", mixed_precision="no")
        return cls(accelerator.device, accelerator)

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.accelerator is None or bool(self.accelerator.is_main_process)

    @property
    def count(self) -> int:
        return 1 if self.accelerator is None else int(self.accelerator.num_processes)

    def synchronised(self, model: nn.Module) -> nn.Module:
        """``model`` such that backward averages gradients over the processes."""
        if self.accelerator is None:
            return model
        prepared: nn.Module = self.accelerator.prepare_model(model)
        return prepared

    def part(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """This process's rows of tensors that hold a whole batch."""
        if self.accelerator is None:
            return tensors
        place = int(self.accelerator.process_index)
        return tuple(tensor.chunk(self.count)[place] for tensor in tensors)

    def mean(self, value: Tensor) -> float:
        """The mean of a number over the processes."""
        if self.accelerator is not None:
            value = self.accelerator.reduce(value.detach(), "mean")
        return value.item()

    def any(self, value: bool) -> bool:
        """Whether ``value`` is true in any process; all must call it at the same step."""
        if self.accelerator is None:
            return value
        counted = torch.tensor(float(value), device=self.device)
        return bool(self.accelerator.reduce(counted, "sum").item())
