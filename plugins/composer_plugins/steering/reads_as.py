"""A score for particles: how surely a classifier reads the views of a digit as intended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from composer import Transform, get_transform
from composer.arguments import integer
from composer.errors import shown
from composer_plugins.backends.mnist.judge import load_chooser
from composer_plugins.steering.readings import log_probabilities

SHIFTS = tuple(product((-1, 0, 1), repeat=2))


@dataclass(frozen=True, eq=False)
class ReadsAs:
    """min over views of log P(digit | view), by the shipped chooser.

    The chooser is a network apart from the judge, which reports results and never chooses. Its log
    P is the mean over shifts of the image by up to one pixel, because another classifier often
    misreads an image that depends on its exact place.

    Args:
        views: {transform: digit}, as for an Anagram.
    """

    image_shape = 1, 28, 28
    """Of the images that it reads; pictures from files are brought to it."""

    views: Mapping[str, int] | Mapping[Transform, int]

    def __post_init__(self) -> None:
        if not isinstance(self.views, Mapping) or not self.views:
            raise TypeError(
                f"ReadsAs: views must be a dict such as {{'identity': 3}}, got {shown(self.views)}."
            )
        for view, digit in self.views.items():
            get_transform(view)
            if integer(digit, "ReadsAs: a digit", least=0) > 9:
                raise ValueError(f"ReadsAs: a digit must be 0 to 9, got {digit}.")

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B,)."""
        around = F.pad(x.float(), (1,) * 4, value=-1)
        height, width = x.shape[-2:]
        readings = [
            log_probabilities(
                load_chooser(),
                around[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width],
                self.views,
            )
            for down, right in SHIFTS
        ]
        return torch.stack(readings).mean(0).diagonal(dim1=1, dim2=2).min(1).values
