"""How diffusers' schedulers differ: in what they show a network, and in what it is to answer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from composer.predictions import EPSILON, SAMPLE, Prediction, V
from composer.schedules import DiscreteSchedule

_KINDS = {"epsilon": EPSILON, "sample": SAMPLE, "v_prediction": V}


@dataclass(frozen=True)
class Family:
    """Schedulers that are driven alike.

    Args:
        fits: whether a scheduler is of it.
        levels: noise levels sigma / (alpha + sigma) of its timesteps.
        shown: (scheduler, level) -> (alpha, sigma) of the image that the network is shown there.
        prediction: what the network answers, on the path of what it is shown.
    """

    fits: Callable[[Any], bool]
    levels: Callable[[Any], list[float]]
    shown: Callable[[Any, float], tuple[float, float]]
    prediction: Callable[[Any], Prediction]


def family_of(scheduler: Any) -> Family:
    """The family of a diffusers scheduler.

    Raises:
        ValueError: it is of none, or its step asks for more than output, time and image.
    """
    name = type(scheduler).__name__
    family = next((family for family in _FAMILIES if family.fits(scheduler)), None)
    if family is None:
        raise ValueError(
            f"{name} is neither a DDPM-like scheduler of epsilon, sample or v_prediction, nor a "
            "FlowMatch, EDM or IPNDM one; use one of those, or a solver of composer"
        )
    asked = inspect.signature(scheduler.step).parameters.values()
    needed = [p.name for p in asked if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if more := [p for p in needed if p not in ("model_output", "timestep", "sample")]:
        raise ValueError(
            f"a step of {name} asks for {' and '.join(more)} beside output, time and image, which "
            "nobody has here; use another scheduler, or a solver of composer"
        )
    return family


def _discrete_levels(scheduler: Any) -> list[float]:
    path = DiscreteSchedule(scheduler.alphas_cumprod)
    return [path.noise_level(float(t)) for t in scheduler.timesteps]


def _discrete_shown(scheduler: Any, level: float) -> tuple[float, float]:
    path = DiscreteSchedule(scheduler.alphas_cumprod)
    return path.at(path.time_at(level))


_DISCRETE = Family(
    lambda s: s.config.get("prediction_type") in _KINDS and hasattr(s, "alphas_cumprod"),
    _discrete_levels,
    _discrete_shown,
    lambda s: _KINDS[s.config.prediction_type],
)

# It integrates noise - x_0, from noise to data.
_REVERSED_FLOW = Prediction("reversed flow", lambda alpha, sigma: (-1.0, 1.0))

_FLOW = Family(
    lambda s: type(s).__name__.startswith("FlowMatch"),
    lambda s: [float(sigma) for sigma in s.sigmas[: len(s.timesteps)]],
    lambda s, level: (1 - level, level),
    lambda s: _REVERSED_FLOW,
)


def _edm_shown(scheduler: Any, level: float) -> tuple[float, float]:
    """c_in (x_0 + sigma noise), of standard deviation 1 where that of x_0 is sigma_data."""
    sigma = level / (1 - level)
    c_in = 1 / math.hypot(sigma, scheduler.config.sigma_data)
    return c_in, c_in * sigma


def _edm_prediction(scheduler: Any) -> Prediction:
    """F of x_0 = c_skip x + c_out F (Karras et al. 2022, arXiv 2206.00364, table 1)."""
    data = scheduler.config.sigma_data
    sign = {"epsilon": 1.0, "v_prediction": -1.0}[scheduler.config.prediction_type]

    def row(alpha: float, sigma: float) -> tuple[float, float]:
        level = sigma / alpha
        size = math.hypot(level, data)
        return sign * level / (data * size), -sign * data / size

    return Prediction("EDM", row)


_EDM = Family(
    lambda s: hasattr(s, "precondition_outputs"),
    lambda s: [float(sigma / (1 + sigma)) for sigma in s.sigmas[: len(s.timesteps)]],
    _edm_shown,
    _edm_prediction,
)


def _angle_shown(scheduler: Any, level: float) -> tuple[float, float]:
    angle = math.atan2(level, 1 - level)
    return math.cos(angle), math.sin(angle)


_IPNDM = Family(
    lambda s: type(s).__name__ == "IPNDMScheduler",
    lambda s: [float(b / (a + b)) for a, b in zip(s.alphas, s.betas, strict=True)][:-1],
    _angle_shown,
    lambda s: V,
)

_FAMILIES = (_DISCRETE, _FLOW, _EDM, _IPNDM)
