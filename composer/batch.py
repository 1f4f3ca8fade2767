"""What a backend is asked in one call, row by row, and what it answers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from composer.words import short_repr

Rows = Sequence[int]
"""Indices of rows, in ascending or any other order."""


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """N rows for a model: each shows it an image, at a time, under a condition.

    Rows that ask about the same images stand together, request by request: classifier-free guidance
    of B images is 2 B rows, the B images under one condition and then under the other.

    Args:
        x: noised images (N, C, H, W); never write into it.
        times: N times on the backend's schedule.
        conditions: N conditions, as ``encode`` returned them.
        images: N numbers; rows of equal numbers show the same image, so that a network may share
            among them what depends on the image alone.
        models: N names, which of the backend's ``models`` each row asks; None for its own.
        beside: further tensors for the model (N, ...), such as a low-resolution conditioning.
    """

    x: Tensor
    times: tuple[float, ...]
    conditions: tuple[Hashable, ...]
    images: tuple[int, ...]
    models: tuple[str | None, ...]
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: Rows) -> Batch:
        """Some of the rows, in the order given; itself for all of them in theirs."""
        if len(rows) == len(self) and _contiguous(rows):
            return self
        return Batch(
            _taken(self.x, rows),
            tuple(self.times[row] for row in rows),
            tuple(self.conditions[row] for row in rows),
            tuple(self.images[row] for row in rows),
            tuple(self.models[row] for row in rows),
            {name: _taken(value, rows) for name, value in self.beside.items()},
        )

    def replace(
        self,
        *,
        x: Tensor | None = None,
        times: Iterable[float] | None = None,
        conditions: Iterable[Hashable] | None = None,
        images: Iterable[int] | None = None,
    ) -> Batch:
        """A copy with the fields given changed."""
        return Batch(
            self.x if x is None else x,
            self.times if times is None else tuple(times),
            self.conditions if conditions is None else tuple(conditions),
            self.images if images is None else tuple(images),
            self.models,
            self.beside,
        )


class Output(NamedTuple):
    """A network's output (N, C, H, W), learned variance split off where there is one."""

    prediction: Tensor
    variance: Tensor | None = None

    def take(self, rows: Rows) -> Output:
        """The output of some rows, in the order given."""
        variance = None if self.variance is None else _taken(self.variance, rows)
        return Output(_taken(self.prediction, rows), variance)

    @staticmethod
    def cat(outputs: Sequence[Output]) -> Output:
        """Outputs of consecutive rows as one."""
        variances = [o.variance for o in outputs if o.variance is not None]
        return Output(
            torch.cat([o.prediction for o in outputs]),
            torch.cat(variances) if variances else None,
        )

    @staticmethod
    def gathered(outputs: Sequence[Output], groups: Sequence[Rows]) -> Output:
        """Outputs of groups of rows as one of all rows in their order; the inverse of
        ``Batch.take`` of each group."""
        together = outputs[0] if len(outputs) == 1 else Output.cat(outputs)
        order = [row for group in groups for row in group]
        if _contiguous(order):
            return together
        return together.take(sorted(range(len(order)), key=order.__getitem__))


def grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    """The rows of each different key, in the order in which the keys first come."""
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return [*rows.values()]


def _contiguous(rows: Rows) -> bool:
    return list(rows) == [*range(rows[0], rows[0] + len(rows))]


def _taken(tensor: Tensor, rows: Rows) -> Tensor:
    """Rows of a tensor; a view if they lie together."""
    if _contiguous(rows):
        return tensor[rows[0] : rows[0] + len(rows)]
    return tensor[torch.tensor(rows, device=tensor.device)]
