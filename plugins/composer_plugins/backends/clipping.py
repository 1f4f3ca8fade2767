"""The clipping of estimated clean images by a scheduler of diffusers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from composer.authoring import Clip, dynamic_threshold


def clip_of(config: Any) -> Clip | None:
    """The function that a scheduler of this configuration applies to x_0 in each step, or None."""
    if config.get("thresholding", False):
        return partial(
            dynamic_threshold,
            percentile=config["dynamic_thresholding_ratio"],
            max_value=config["sample_max_value"],
        )
    if config.get("clip_sample", False):
        bound = config.get("clip_sample_range", 1.0)
        return partial(torch.clamp, min=-bound, max=bound)
    return None
