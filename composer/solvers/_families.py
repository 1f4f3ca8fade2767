"""How diffusers' schedulers differ: in what they show a network, and in what it is to answer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from composer.predictions import EPSILON, SAMPLE, Prediction, V
from composer.schedules import DiscreteSchedule, Schedule

_KINDS = {"epsilon": EPSILON, "sample": SAMPLE, "v_prediction": V}
_EDM_SIGNS = {"epsilon": 1.0, "v_prediction": -1.0}
# It integrates noise - x_0, from noise to data.
_REVERSED_FLOW = Prediction("reversed flow", lambda alpha, sigma: (-1.0, 1.0))


class Place(NamedTuple):
    """Where a scheduler evaluates the network.

    Args:
        time: the model's.
        level: the noise level of the scheduler's variables.
        beyond: whether that is noisier than the model's noisiest time, which ``time`` then is.
    """

    time: float
    level: float
    beyond: bool


@dataclass(frozen=True)
class Family:
    """Schedulers that are driven alike.

    Args:
        fits: whether a scheduler is of it.
        levels: noise levels sigma / (alpha + sigma) at which it evaluates the network.
        shown: (scheduler, level) -> (alpha, sigma) of the image that the network is shown there.
        prediction: what the network answers, on the path of what it is shown.
        own_times: (scheduler, schedule) -> the times that it gives the network, if they are times
            of this schedule.
    """

    fits: Callable[[Any], bool]
    levels: Callable[[Any], list[float]]
    shown: Callable[[Any, float], tuple[float, float]]
    prediction: Callable[[Any], Prediction]
    own_times: Callable[[Any, Schedule], list[float] | None] = lambda scheduler, schedule: None

    def places(self, scheduler: Any, levels: list[float], schedule: Schedule) -> list[Place]:
        """Where a model of ``schedule`` is asked for a scheduler's evaluations at ``levels``.

        These are the scheduler's own times where it was made for this schedule, so that the
        network is shown what diffusers shows it; else the times of equal noise level.
        """
        own = self.own_times(scheduler, schedule) or [math.nan] * len(levels)
        noisiest = schedule.time_at(1.0)

        def place(level: float, label: float) -> Place:
            time = schedule.time_at(level)
            if level > schedule.noise_level(time) + 1e-7:
                return Place(time, level, beyond=True)
            # Karras' times are whole or nearly so, and the last signal may be 2^-24 in place of 0.
            if abs(label - time) < 1.001 or label == noisiest:
                return Place(label, schedule.noise_level(label), beyond=False)
            return Place(time, level, beyond=False)

        return [place(*pair) for pair in zip(levels, own, strict=True)]


def family_of(scheduler: Any) -> Family:
    """The family of a diffusers scheduler.

    Raises:
        ValueError: it is of none, or its step asks for more than output, time and image.
    """
    name = type(scheduler).__name__
    family = next((family for family in _FAMILIES if family.fits(scheduler)), None)
    if family is None:
        raise ValueError(
            f"{name}, as it is configured, is neither a DDPM-like scheduler of epsilon, sample or "
            "v_prediction at whole times, nor a FlowMatch, EDM or IPNDM one; use one of those, or "
            "a solver of composer"
        )
    if more := asked_beyond(scheduler):
        raise ValueError(
            f"a step of {name} asks for {' and '.join(more)} beside output, time and image, and "
            "DiffusersSolver has none of these; use another scheduler, or a solver of composer"
        )
    if name in _UNKNOWN.get(scheduler.config.get("prediction_type"), ()):
        raise ValueError(
            f"{name} knows no prediction_type={scheduler.config.prediction_type!r}; configure it "
            "with 'epsilon', whatever the model predicts"
        )
    if name == "UniPCMultistepScheduler" and _ends_in_nan(scheduler.config):
        raise ValueError(
            f"{name} divides by zero in its last step, as it is configured; configure it with "
            "final_sigmas_type='sigma_min', or with predict_x0=True, solver_type='bh2' and "
            "lower_order_final=True"
        )
    return family


def asked_beyond(scheduler: Any) -> list[str]:
    """What a scheduler's step needs beside the output of the model, the time and the image."""
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(scheduler.step).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in open_ended
        and name not in ("model_output", "timestep", "sample")
    ]


def _ends_in_nan(config: Any) -> bool:
    """Whether UniPC's last step, to a sigma of 0, is none that it can take."""
    regular = config.predict_x0 and config.lower_order_final and config.solver_type == "bh2"
    return config.final_sigmas_type == "zero" and not regular


def clips(scheduler: Any) -> bool:
    """Whether a scheduler clips every clean image that it computes."""
    return _has(scheduler, "clip_sample", _CLIPPING) and not thresholds(scheduler)


def thresholds(scheduler: Any) -> bool:
    """Whether a scheduler applies dynamic thresholding to every clean image that it computes."""
    return _has(scheduler, "thresholding", _THRESHOLDING) and scheduler.config.get("predict_x0", 1)


def _has(scheduler: Any, setting: str, heeding: tuple[str, ...]) -> bool:
    """Whether a setting is on, in a scheduler that heeds it: some take it and do nothing, and
    ``from_config`` keeps the word of others."""
    return bool(scheduler.config.get(setting)) and type(scheduler).__name__ in heeding


def _is(scheduler: Any, prefix: str) -> bool:
    """By name, for to import them all takes seconds."""
    return any(kind.__name__.startswith(prefix) for kind in type(scheduler).__mro__)


def _levels_of(sigmas: Iterable[Any]) -> list[float]:
    """Of x_0 + sigma noise; in Python's numbers, for 1 - level is small where sigma is large."""
    return [sigma / (1 + sigma) for sigma in map(float, sigmas)]


def _variance_preserving(scheduler: Any, level: float) -> tuple[float, float]:
    """The alpha and sigma of which alpha^2 + sigma^2 = 1."""
    angle = math.atan2(level, 1 - level)
    return math.cos(angle), math.sin(angle)


def _discrete_levels(scheduler: Any) -> list[float]:
    name, times = type(scheduler).__name__, scheduler.timesteps.tolist()
    table = scheduler.alphas_cumprod
    if scheduler.num_inference_steps > len(table) or not all(map(math.isfinite, times)):
        raise ValueError(
            f"{name} has {len(table)} times and no plan of {scheduler.num_inference_steps} steps "
            "among them; take another number of steps, or configure it otherwise"
        )
    if min(times) < 0 or max(times) > len(table) - 1:
        raise ValueError(
            f"{name} plans a time outside of 0 to {len(table) - 1}, as its timestep_spacing is "
            "rounded; take another number of steps"
        )
    if scheduler.config.prediction_type == "epsilon" and table[int(times[0])] == 0:
        raise ValueError(
            f"{name} begins at a signal of zero, where epsilon says nothing of the image; "
            "configure it with prediction_type='v_prediction', whatever the model predicts"
        )
    if hasattr(scheduler, "sigmas"):
        return _levels_of(_sigmas(scheduler)[: len(times)])
    path = _path_of(scheduler)
    return [path.noise_level(t) for t in times]


def _sigmas(scheduler: Any) -> list[float]:
    """Of x_0 + sigma noise at each evaluation: KDPM2 takes every second one between two steps."""
    sigmas: list[float] = scheduler.sigmas.tolist()
    between = getattr(scheduler, "sigmas_interpol", None)
    if between is not None:
        ancestral = hasattr(scheduler, "sigmas_down")  # that of its first half stands first
        sigmas[1::2] = (between.roll(1) if ancestral else between).tolist()[1::2]
    return sigmas


def _path_of(scheduler: Any) -> DiscreteSchedule:
    # Some put 2^-24 in place of a last 0, which is more than what stands before it.
    return DiscreteSchedule(scheduler.alphas_cumprod.cummin(0).values)


def _discrete_times(scheduler: Any, schedule: Schedule) -> list[float] | None:
    if not isinstance(schedule, DiscreteSchedule) or len(schedule) != len(scheduler.alphas_cumprod):
        return None
    tables = schedule.alphas_cumprod, _path_of(scheduler).alphas_cumprod
    alike = torch.allclose(*tables, rtol=1e-4, atol=1e-7)  # computed in float32, or 2^-24 for 0
    return [float(t) for t in scheduler.timesteps] if alike else None


def _is_discrete(scheduler: Any) -> bool:
    config = scheduler.config
    return (
        config.get("prediction_type") in _KINDS
        and hasattr(scheduler, "alphas_cumprod")
        and not config.get("use_flow_sigmas")  # another path than that of alphas_cumprod
        and config.get("timestep_type") != "continuous"
    )


def _edm_shown(scheduler: Any, level: float) -> tuple[float, float]:
    """c_in (x_0 + sigma noise), of standard deviation 1 where that of x_0 is sigma_data."""
    sigma = level / (1 - level)
    c_in = 1 / math.hypot(sigma, scheduler.config.sigma_data)
    return c_in, c_in * sigma


def _edm_prediction(scheduler: Any) -> Prediction:
    """F of x_0 = c_skip x + c_out F (Karras et al. 2022, arXiv 2206.00364, table 1)."""
    data, sign = scheduler.config.sigma_data, _EDM_SIGNS[scheduler.config.prediction_type]

    def row(alpha: float, sigma: float) -> tuple[float, float]:
        noise = sigma / alpha
        size = math.hypot(noise, data)
        return sign * noise / (data * size), -sign * data / size

    return Prediction("EDM", row)


_UNKNOWN = {
    "sample": (
        *("EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
        *("KDPM2DiscreteScheduler", "PNDMScheduler"),
    ),
    "v_prediction": ("UnCLIPScheduler",),
}
"""Predictions that a scheduler takes in its configuration and not in its steps."""
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
_FAMILIES = (
    Family(
        fits=_is_discrete,
        levels=_discrete_levels,
        shown=_variance_preserving,
        prediction=lambda s: _KINDS[s.config.prediction_type],
        own_times=_discrete_times,
    ),
    Family(
        fits=lambda s: _is(s, "FlowMatch"),
        levels=lambda s: [float(sigma) for sigma in s.sigmas[: len(s.timesteps)]],
        shown=lambda s, level: (1 - level, level),
        prediction=lambda s: _REVERSED_FLOW,
    ),
    Family(  # EDM
        fits=lambda s: (
            hasattr(s, "precondition_outputs") and s.config.get("prediction_type") in _EDM_SIGNS
        ),
        levels=lambda s: _levels_of(s.sigmas[: len(s.timesteps)]),
        shown=_edm_shown,
        prediction=_edm_prediction,
    ),
    Family(  # of betas of its own it takes as many steps as there are, whatever is asked
        fits=lambda s: _is(s, "IPNDMScheduler") and s.config.get("trained_betas") is None,
        levels=lambda s: [
            float(b) / (float(a) + float(b))
            for a, b in zip(s.alphas[:-1], s.betas[:-1], strict=True)
        ],
        shown=_variance_preserving,
        prediction=lambda s: V,
    ),
)
"""The first that fits; none fits what another does."""
