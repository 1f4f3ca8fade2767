"""What a scheduler of diffusers asks for in a step, and what it does to every clean image."""

from __future__ import annotations

import inspect
from typing import Any

_CLIPPING = (
    *("DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler"),
    *("HeunDiscreteScheduler", "LCMScheduler", "UnCLIPScheduler"),
)
_THRESHOLDING = (
    *("DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler"),
    *("DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("EDMDPMSolverMultistepScheduler", "LCMScheduler", "SASolverScheduler"),
    "UniPCMultistepScheduler",
)


def asked_beyond(scheduler: Any) -> list[str]:
    """The arguments of a scheduler's step other than the model's output, time and image."""
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(scheduler.step).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in open_ended
        and name not in ("model_output", "timestep", "sample")
    ]


def clips(scheduler: Any) -> bool:
    """Whether a scheduler clips every clean image that it computes."""
    return _has(scheduler, "clip_sample", _CLIPPING) and not thresholds(scheduler)


def thresholds(scheduler: Any) -> bool:
    """Whether a scheduler applies dynamic thresholding to every clean image that it computes."""
    return _has(scheduler, "thresholding", _THRESHOLDING) and scheduler.config.get("predict_x0", 1)


def _has(scheduler: Any, setting: str, heeding: tuple[str, ...]) -> bool:
    """Whether a setting is on and the scheduler uses it.

    Some schedulers accept a setting and ignore it, and ``from_config`` keeps settings of others.
    """
    return bool(scheduler.config.get(setting)) and type(scheduler).__name__ in heeding
