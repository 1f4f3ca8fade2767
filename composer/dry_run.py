"""What a plugin makes of predictions, seen without asking the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from composer.driver import drive, resolve
from composer.predictions import Prediction
from composer.requests import Estimate, Request

if TYPE_CHECKING:
    from composer.sampler import Sampler


def require_one_kind(sampler: Sampler, conditions: Sequence[Any], owner: str) -> None:
    """Refuse plugins in place of conditions whose estimates cannot be added to the others'."""
    kinds = {
        kind_of(c, sampler) if hasattr(c, "noise_estimate") else sampler.backend.prediction
        for c in conditions
    }
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.name for kind in kinds))
        raise ValueError(
            f"{owner} would combine estimates of the kinds {names}; a plugin that works on x_0 or "
            "noise must stand in all branches, or around them"
        )


def kind_of(plugin: Any, sampler: Sampler) -> Prediction:
    """The kind of estimate that a plugin returns over a model that predicts nothing but zeros."""
    backend = sampler.backend

    def zeros(requests: list[Request]) -> list[Estimate]:
        return [
            Estimate(torch.zeros_like(r.x), None, r.x, r.t, backend.schedule, backend.prediction)
            for r in requests
        ]

    # Half-way, where neither the image nor the noise is lost.
    time = sampler.times[(len(sampler.times) - 1) // 2]
    x = torch.ones(1, *backend.shape, dtype=backend.dtype, device=backend.device)
    request = Request(x, time, schedule=backend.schedule)
    return drive(resolve(request, [plugin.noise_estimate]), zeros).kind
