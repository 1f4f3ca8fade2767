"""Random generators that depend on numbers alone."""

from __future__ import annotations

import numpy as np
import torch


def generator_of(seed: int, index: int) -> torch.Generator:
    """The generator of step or candidate ``index`` of a seed; seeds above 2**32 differ too."""
    # torch reads 32 bits of a seed, so hash (seed, index) into that many.
    mixed = np.random.SeedSequence([seed, index]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))
