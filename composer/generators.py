"""Random generators that depend on numbers alone, and noise of which each image has its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from composer.placing import to_device


def generator_of(seed: int, index: int) -> torch.Generator:
    """The generator of step or candidate ``index`` of a seed; seeds above 2**32 differ too."""
    # torch reads 32 bits of a seed, so hash (seed, index) into that many.
    mixed = np.random.SeedSequence([seed, index]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


def noise_of(
    generators: Sequence[torch.Generator],
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Noise ~ N(0, I) (B, *shape) on a device, one image from each generator.

    The draw is on the generators' device, so that a seed gives the same image on every device.
    """
    noise = torch.empty((len(generators), *shape), dtype=dtype, device=generators[0].device)
    for row, generator in zip(noise.split(1), generators, strict=True):
        torch.randn(row.shape, generator=generator, out=row)
    return to_device(noise, device)
