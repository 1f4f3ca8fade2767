"""The state of one sampling run, which lifecycle hooks read and change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from composer.backends import Backend
from composer.requests import Estimate, Request


@dataclass(eq=False)
class State:
    """Where a run is.

    Attributes:
        x: the current image (B, C, H, W); replace it, never write into it.
        times: the whole plan, from noise to clean; ``start`` hooks may change it. A time noisier
            than the one before it is a RePaint jump.
        position: index in ``times`` of the time that x is at.
        step: 0-based number of the current sampling step.
        estimate: the last combined estimate, None before the first and after a jump.
        condition, seeds, backend, num_inference_steps: as given to the sampler and the call.
        stopped: set by :meth:`stop`.
        beside: tensors laid out like the image (B, ., H, W) that every request carries, such as a
            low-resolution conditioning.
        memory: what plugins keep for the length of this run, by plugin.
    """

    x: Tensor
    times: list[float]
    condition: Any
    seeds: tuple[int, ...]
    backend: Backend
    num_inference_steps: int
    position: int = 0
    step: int = 0
    estimate: Estimate | None = None
    stopped: bool = False
    beside: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[Any, Any] = field(default_factory=dict)
    generators: tuple[torch.Generator, ...] = ()

    @property
    def t(self) -> float:
        """The time that x is at."""
        return self.times[self.position]

    @property
    def t_next(self) -> float:
        """The time that the current step goes to."""
        return self.times[self.position + 1]

    @property
    def finished(self) -> bool:
        """Whether no step is left, or a plugin stopped the run."""
        return self.stopped or self.position + 1 >= len(self.times)

    def stop(self) -> None:
        """End the run after this step; ``finish`` still runs. For hooks: whoever reads a stream
        leaves the loop instead."""
        self.stopped = True

    def randn(self) -> Tensor:
        """Fresh noise (B, C, H, W), row k from the generator of seeds[k] alone."""
        return draw(self.generators, self.backend)

    def request(self, x: Tensor, t: float) -> Request:
        """The question this run asks at (x, t)."""
        schedule = self.backend.schedule
        return Request(x, t, self.condition, self.step, self.beside, schedule=schedule)

    def snapshot(self) -> State:
        """A copy that later steps leave as it is, and that leaves them alone."""
        generators = tuple(torch.Generator().set_state(g.get_state()) for g in self.generators)
        return dataclasses.replace(
            self,
            times=list(self.times),
            beside=dict(self.beside),
            memory=dict(self.memory),
            generators=generators,
        )


def draw(generators: tuple[torch.Generator, ...], backend: Backend) -> Tensor:
    """Noise (B, C, H, W) on the backend's device, one image from each generator."""
    noise: Tensor = randn_tensor(
        (len(generators), *backend.shape),
        generator=list(generators),
        device=backend.device,
        dtype=backend.dtype,
    )
    return noise
