"""Random generators that are functions of numbers."""

from __future__ import annotations

import numpy as np
import torch


def generator_of(seed: int, step: int) -> torch.Generator:
    """The generator of one step; steps of other seeds, and from 2**32 on, have others."""
    # torch reads 32 bits of a seed, so (seed, step) is hashed into that many.
    mixed = np.random.SeedSequence([seed, step]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))
