"""The skew: columns rolled by an amount that grows from left to right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from composer import Transform
from composer.arguments import finite

REFERENCE_SIZE = 64


@dataclass(frozen=True)
class Skew(Transform):
    """Column c rolls down by d_c pixels, d linear from -max to max, wrapping around.

    Args:
        max_displacement: in pixels of an image 64 high (the course's 50); scales with the height.
    """

    max_displacement: float = 50.0

    def __post_init__(self) -> None:
        finite(self.max_displacement, "Skew: max_displacement")

    def __call__(self, x: Tensor) -> Tensor:
        return self._rolled(x, 1)

    def inverse(self, x: Tensor) -> Tensor:
        return self._rolled(x, -1)

    def _rolled(self, x: Tensor, sign: int) -> Tensor:
        height, width = x.shape[-2:]
        reach = self.max_displacement * height / REFERENCE_SIZE
        shifts = torch.linspace(-reach, reach, width, dtype=torch.float64).round().long()
        rows = (torch.arange(height)[:, None] - sign * shifts) % height
        return x[..., rows.to(x.device), torch.arange(width, device=x.device)]
