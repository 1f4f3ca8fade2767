"""A backend with the requests that its contract sends, and its answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from composer.batch import Output
from composer.model import evaluated
from composer.protocols import Backend
from composer.requests import Request
from composer.testing.checks import first, off
from composer.testing.probe import noise

LEVELS = (0.8, 0.2)
"""Noise levels at which the checks evaluate a model."""


@dataclass(frozen=True)
class Examined:
    """A backend, and the requests to check it with.

    Args:
        backend: the backend.
        conditions: conditions that it knows.
        beside: further tensors of its requests.
        tolerance: the allowed difference of two answers, as a share of the largest value.
        trained: whether its network is trained.
    """

    backend: Backend
    conditions: tuple[Any, ...]
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    tolerance: float = 1e-3
    trained: bool = True

    @cached_property
    def x(self) -> Tensor:
        """Two images of noise."""
        drawn = noise(self.backend.shape, 2)
        return drawn.to(self.backend.device, self.backend.dtype)

    def request(self, condition: Any, level: float, x: Tensor) -> Request:
        """A request at x and a noise level."""
        schedule, encoded = self.backend.schedule, self.backend.encode(condition)
        time = schedule.time_at(level)
        return Request(x, time, encoded, beside=self.beside, schedule=schedule)

    def requests(self, x: Tensor | None = None) -> list[Request]:
        """Requests of all conditions at all levels for one x, as a stack of plugins may send them.

        By default x is a new copy of the two images, because a backend may write into it.
        """
        seen = self.x.clone() if x is None else x
        return [self.request(c, level, seen) for c in self.conditions for level in LEVELS]

    @cached_property
    def outputs(self) -> Sequence[Output]:
        """The backend's outputs for :meth:`requests`, cached for the laws."""
        with torch.no_grad():
            return evaluated(self.backend, self.requests())

    @property
    def usual(self) -> list[Tensor]:
        """The predictions for :meth:`requests`."""
        return [output.prediction for output in self.outputs]

    @torch.no_grad()
    def answers(self, requests: Sequence[Request]) -> list[Tensor]:
        """The predictions for requests; ``answers_each_row`` checks their form."""
        return [output.prediction for output in evaluated(self.backend, requests)]

    def apart(self, seen: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> str:
        """The difference of two lists of answers in words, "" if there is none."""
        largest = max(1e-6, *(e.abs().max().item() for e in expected))
        pairs = zip(seen, expected, strict=True)
        return first(off(s, e, self.tolerance * largest, what) for s, e in pairs)
