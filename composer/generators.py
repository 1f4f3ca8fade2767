"""Random generators that are functions of numbers."""

from __future__ import annotations

import numpy as np
import torch


def generator_of(seed: int, index: int) -> torch.Generator:
    """The generator of a step, or a candidate, of a seed; others have others, from 2**32 on too."""
    # torch reads 32 bits of a seed, so (seed, index) is hashed into that many.
    mixed = np.random.SeedSequence([seed, index]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))
