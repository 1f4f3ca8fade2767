"""Specks: bits of ink beside a digit, which people see and classifiers overlook."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

INK = -0.4
"""Pixels above this are ink: .3 of the way from black to white."""
MOST = 7
"""Pixels of a speck at most. Of 5,000 test digits one has a speck."""


def specks(x: Tensor) -> Tensor:
    """The number (B,) of specks in images (B, 1, H, W) in [-1, 1]: groups of at most MOST pixels of
    ink which touch, also at corners, and touch no other ink."""
    ink, count = (x > INK).float(), x[0].numel()
    labels, spread = torch.zeros_like(ink), ink * torch.arange(1, count + 1).reshape(x[:1].shape)
    while not torch.equal(labels, spread):  # until each group has the largest label in it
        labels, spread = spread, ink * F.max_pool2d(spread, 3, 1, 1)
    groups = [torch.bincount(one, minlength=count + 1)[1:] for one in labels.long().flatten(1)]
    sizes = torch.stack(groups)
    return ((sizes > 0) & (sizes <= MOST)).sum(1)
