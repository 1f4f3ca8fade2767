"""The rows that a backend gets in one call, and its output."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from composer.placing import to_device
from composer.words import short_repr

_Rows = Sequence[int]
"""Indices of rows, in ascending or any other order."""


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """N rows for a model, each an image at a time with a condition.

    The rows of one request stand together. Classifier-free guidance of B images is 2 B rows: the B
    images with one condition, then with the other.

    Args:
        x: noised images (N, C, H, W); never write into it.
        times: N times on the backend's schedule.
        conditions: N conditions, as ``encode`` returned them.
        images: N numbers. Rows with equal numbers have the same image, so that a network may share
            work that depends on the image alone.
        models: the name of one of the backend's ``models`` for each row; None for its own model.
        beside: further tensors for the model (N, ...), such as a low-resolution image.
    """

    x: Tensor
    times: tuple[float, ...]
    conditions: tuple[Hashable, ...]
    images: tuple[int, ...]
    models: tuple[Any, ...]
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: _Rows) -> Batch:
        """The given rows, in the given order; the batch itself for all rows in their order."""
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
        models: Iterable[Any] | None = None,
    ) -> Batch:
        """A copy with the given fields changed."""
        return Batch(
            self.x if x is None else x,
            self.times if times is None else tuple(times),
            self.conditions if conditions is None else tuple(conditions),
            self.images if images is None else tuple(images),
            self.models if models is None else tuple(models),
            self.beside,
        )


class Output(NamedTuple):
    """A network's output (N, C, H, W), and its learned variance if it has one."""

    prediction: Tensor
    variance: Tensor | None = None

    def take(self, rows: _Rows) -> Output:
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
    def gathered(outputs: Sequence[Output], groups: Sequence[_Rows]) -> Output:
        """Join the outputs of groups of rows into one Output of all rows in their order.

        This reverses ``Batch.take`` of each group.
        """
        together = outputs[0] if len(outputs) == 1 else Output.cat(outputs)
        order = [row for group in groups for row in group]
        if _contiguous(order):
            return together
        return together.take(sorted(range(len(order)), key=order.__getitem__))


def grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    """The rows of each distinct key, in the order of the keys' first rows."""
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return [*rows.values()]


def _contiguous(rows: _Rows) -> bool:
    return list(rows) == [*range(rows[0], rows[0] + len(rows))]


def _taken(tensor: Tensor, rows: _Rows) -> Tensor:
    """Rows of a tensor; a view of it if they are consecutive."""
    if _contiguous(rows):
        return tensor[rows[0] : rows[0] + len(rows)]
    return tensor[to_device(torch.tensor(rows), tensor.device)]
