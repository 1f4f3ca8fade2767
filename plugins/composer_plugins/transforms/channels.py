"""The channels of an image in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import Transform
from composer.arguments import integer
from composer.errors import shown


@dataclass(frozen=True)
class ChannelPermutation(Transform):
    """Channel i of the view is channel order[i] of the image.

    Args:
        order: each number from 0 to C - 1 once; by default red and blue change places.
    """

    order: Sequence[int] = (2, 1, 0)

    def __post_init__(self) -> None:
        if not isinstance(self.order, Sequence) or isinstance(self.order, str):
            raise TypeError(f"ChannelPermutation: order must be a tuple, got {shown(self.order)}.")
        order = tuple(integer(i, "ChannelPermutation: a channel", least=0) for i in self.order)
        object.__setattr__(self, "order", order)
        if sorted(order) != list(range(len(order))):
            raise ValueError(
                f"ChannelPermutation: order must hold each number from 0 to {len(order) - 1} once, "
                f"got {order}."
            )

    def __call__(self, x: Tensor) -> Tensor:
        return self._taken(x, torch.tensor(self.order))

    def inverse(self, x: Tensor) -> Tensor:
        return self._taken(x, torch.tensor(self.order).argsort())

    @property
    def sizes(self) -> str:
        return f"images of {len(self.order)} channels"

    def _taken(self, x: Tensor, order: Tensor) -> Tensor:
        if x.shape[-3] != len(order):
            raise ValueError(f"ChannelPermutation: it accepts {self.sizes}, got {x.shape[-3]}.")
        return x.index_select(-3, order.to(x.device))
