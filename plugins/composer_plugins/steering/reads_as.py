"""A score of digits: how surely classifiers read the views of an image as intended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from composer import Transform, get_transform
from composer.arguments import choice, integer
from composer.errors import owned, shown
from composer_plugins.backends.mnist.readers import CHOOSER, load_reader


@dataclass(frozen=True, eq=False)
class ReadsAs:
    """log P(digit | view) by the shipped chooser: of the view that reads worst, or of all views.

    The chooser is a network apart from the judges, which report results and never choose; its
    architecture and its training differ from theirs. It was trained on attacked images, so that its
    gradient draws strokes, and not the specks that only networks read. log P is the mean over
    shifts of the image, because another classifier often misreads an image that depends on its
    exact place. It can be differentiated by the image.

    Args:
        views: {transform: digit}, as for an Anagram.
        of: "worst", the smallest log P of the views, to choose by; or "all", their sum, to steer
            by: a step for one view alone is rarely one that both need.
        shift: pixels by which images are moved at most, along both axes; 0 reads them in place, at
            a ninth of the cost of 1.
    """

    image_shape = 1, 28, 28
    """Of the images that it reads; pictures from files are brought to it."""

    views: Mapping[str, int] | Mapping[Transform, int]
    of: Literal["worst", "all"] = "worst"
    shift: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.views, Mapping) or not self.views:
            raise TypeError(
                f"ReadsAs: views must be a dict such as {{'identity': 3}}, got {shown(self.views)}."
            )
        for view, digit in self.views.items():
            with owned("ReadsAs"):
                get_transform(view)
            if integer(digit, "ReadsAs: a digit", least=0) > 9:
                raise ValueError(f"ReadsAs: a digit must be 0 to 9, got {digit}.")
        choice(self.of, "ReadsAs: of", ("worst", "all"))
        integer(self.shift, "ReadsAs: shift", least=0, most=4)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B,)."""
        k, (height, width) = self.shift, x.shape[-2:]
        around = F.pad(x.float(), (k,) * 4, value=-1)
        readings = [
            self._read(around[..., down : down + height, right : right + width])
            for down, right in product(range(2 * k + 1), repeat=2)
        ]
        views = torch.stack(readings).mean(0)
        return views.min(0).values if self.of == "worst" else views.sum(0)

    def _read(self, x: Tensor) -> Tensor:
        """(N, B): log P(digit | view) of each view."""
        reader = load_reader(CHOOSER)
        return torch.stack(
            [
                reader(get_transform(view)(x)).log_softmax(1)[:, digit]
                for view, digit in self.views.items()
            ]
        )
