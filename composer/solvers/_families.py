"""Families of diffusers' schedulers, by the input and output of the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from composer.predictions import EPSILON, SAMPLE, Prediction, V
from composer.schedules import DiscreteSchedule, Schedule
from composer.schedules.discrete import variance_preserving
from composer.solvers._schedulers import asked_beyond

_KINDS = {"epsilon": EPSILON, "sample": SAMPLE, "v_prediction": V}
_EDM_SIGNS = {"epsilon": 1.0, "v_prediction": -1.0}
# FlowMatch schedulers integrate noise - x_0, from noise to data.
_REVERSED_FLOW = Prediction("reversed flow", lambda alpha, sigma: (-1.0, 1.0))


class Place(NamedTuple):
    """A point at which a scheduler evaluates the network.

    Args:
        time: the model's time.
        level: the noise level of the scheduler's variables.
        beyond: whether the level is above the model's noisiest time; ``time`` then is that time.
    """

    time: float
    level: float
    beyond: bool


@dataclass(frozen=True)
class Family:
    """Schedulers that DiffusersSolver drives in the same way.

    Args:
        fits: whether a scheduler belongs to the family.
        levels: noise levels sigma / (alpha + sigma) at which it evaluates the network.
        shown: (scheduler, level) -> (alpha, sigma) of the network's input at that level.
        prediction: the type of the network's output, on the path of its input.
        own_times: (scheduler, schedule) -> the times that it gives the network, if they are times
            of this schedule.
    """

    fits: Callable[[Any], bool]
    levels: Callable[[Any], list[float]]
    shown: Callable[[Any, float], tuple[float, float]]
    prediction: Callable[[Any], Prediction]
    own_times: Callable[[Any, Schedule], list[float] | None] = lambda scheduler, schedule: None

    def __reduce__(self) -> tuple[Callable[[int], Family], tuple[int]]:
        # Pickle and copy by place in the table, because the functions of a family have no names.
        return _family_at, (_FAMILIES.index(self),)

    def places(self, scheduler: Any, levels: list[float], schedule: Schedule) -> list[Place]:
        """The model's times for a scheduler's evaluations at ``levels``.

        They are the scheduler's own times if it was made for this schedule, so that the network has
        the same input as in diffusers. Otherwise they are the times of equal noise level.
        """
        own = self.own_times(scheduler, schedule) or [math.nan] * len(levels)
        noisiest = schedule.time_at(1.0)

        def place(level: float, label: float) -> Place:
            time = schedule.time_at(level)
            if level > schedule.noise_level(time) + 1e-7:
                return Place(time, level, beyond=True)
            # Karras' times are nearly integers, and the last signal may be 2^-24 in place of 0.
            if abs(label - time) < 1.001 or label == noisiest:
                return Place(label, schedule.noise_level(label), beyond=False)
            return Place(time, level, beyond=False)

        return [place(*pair) for pair in zip(levels, own, strict=True)]


def family_of(scheduler: Any) -> Family:
    """The family of a diffusers scheduler.

    Raises:
        ValueError: it belongs to none, or its step needs more than output, time and image.
    """
    name = type(scheduler).__name__
    family = next((family for family in _FAMILIES if family.fits(scheduler)), None)
    if family is None:
        raise ValueError(
            f"DiffusersSolver: {name} in this configuration must be DDPM-like (epsilon, sample or "
            "v_prediction, integer times), FlowMatch, EDM or IPNDM, and is not. Use one of those, "
            "or a solver of composer."
        )
    if more := asked_beyond(scheduler):
        raise ValueError(
            f"DiffusersSolver: a step of {name} needs {' and '.join(more)}, which a backend does "
            "not give. Use another scheduler, or a solver of composer."
        )
    if name in _UNKNOWN.get(scheduler.config.get("prediction_type"), ()):
        raise ValueError(
            f"{name} does not support prediction_type={scheduler.config.prediction_type!r}. "
            "Configure it with 'epsilon', for any model."
        )
    if name == "UniPCMultistepScheduler" and _ends_in_nan(scheduler.config):
        raise ValueError(
            f"{name} in this configuration divides by zero in its last step. Configure it with "
            "final_sigmas_type='sigma_min', or with predict_x0=True, solver_type='bh2' and "
            "lower_order_final=True."
        )
    return family


def _ends_in_nan(config: Any) -> bool:
    """Whether UniPC's last step, to a sigma of 0, divides by zero."""
    regular = config.predict_x0 and config.lower_order_final and config.solver_type == "bh2"
    return config.final_sigmas_type == "zero" and not regular


def _is(scheduler: Any, prefix: str) -> bool:
    """Whether a class name in the scheduler's mro begins so; an import would take seconds."""
    return any(kind.__name__.startswith(prefix) for kind in type(scheduler).__mro__)


def _levels_of(sigmas: Iterable[Any]) -> list[float]:
    """Noise levels of x_0 + sigma noise, in Python floats: 1 - level is tiny for large sigma."""
    return [sigma / (1 + sigma) for sigma in map(float, sigmas)]


def _discrete_levels(scheduler: Any) -> list[float]:
    name, times = type(scheduler).__name__, scheduler.timesteps.tolist()
    table = scheduler.alphas_cumprod
    if scheduler.num_inference_steps > len(table) or not all(map(math.isfinite, times)):
        raise ValueError(
            f"{name} has {len(table)} times and no plan of {scheduler.num_inference_steps} steps "
            "among them. Take another number of steps, or another configuration."
        )
    if len(table) != scheduler.config.num_train_timesteps:
        raise ValueError(
            f"{name}: trained_betas must have num_train_timesteps = "
            f"{scheduler.config.num_train_timesteps} values, got {len(table)}. Set "
            f"num_train_timesteps={len(table)}."
        )
    if min(times) < 0 or max(times) > len(table) - 1:
        raise ValueError(
            f"{name} plans a time outside of 0 to {len(table) - 1}, because it rounds its "
            "timestep_spacing. Take another number of steps."
        )
    if scheduler.config.prediction_type == "epsilon" and table[int(times[0])] == 0:
        raise ValueError(
            f"{name} begins at a signal of zero, where epsilon does not determine the image. "
            "Configure it with prediction_type='v_prediction', for any model."
        )
    if hasattr(scheduler, "sigmas"):
        return _levels_of(_sigmas(scheduler)[: len(times)])
    path = _path_of(scheduler)
    return [path.noise_level(t) for t in times]


def _sigmas(scheduler: Any) -> list[float]:
    """sigma of x_0 + sigma noise at each evaluation; KDPM2 has one between each two steps."""
    sigmas: list[float] = scheduler.sigmas.tolist()
    between = getattr(scheduler, "sigmas_interpol", None)
    if between is not None:
        ancestral = hasattr(scheduler, "sigmas_down")  # the sigma of the first half comes first
        sigmas[1::2] = (between.roll(1) if ancestral else between).tolist()[1::2]
    return sigmas


def _path_of(scheduler: Any) -> DiscreteSchedule:
    # Some schedulers put 2^-24 in place of a last 0, which exceeds the number before it.
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
        and not config.get("use_flow_sigmas")  # a path other than that of alphas_cumprod
        and config.get("timestep_type") != "continuous"
    )


def _edm_shown(scheduler: Any, level: float) -> tuple[float, float]:
    """alpha and sigma of c_in (x_0 + sigma noise), which has standard deviation 1 if x_0 has
    sigma_data."""
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
"""Predictions that a scheduler accepts in its configuration and fails on in its steps."""
_FAMILIES = (
    Family(
        fits=_is_discrete,
        levels=_discrete_levels,
        shown=lambda s, level: variance_preserving(level),
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
    Family(  # with trained_betas it ignores the number of steps given
        fits=lambda s: _is(s, "IPNDMScheduler") and s.config.get("trained_betas") is None,
        levels=lambda s: [
            float(b) / (float(a) + float(b))
            for a, b in zip(s.alphas[:-1], s.betas[:-1], strict=True)
        ],
        shown=lambda s, level: variance_preserving(level),
        prediction=lambda s: V,
    ),
)
"""The families; at most one fits a scheduler."""


def _family_at(place: int) -> Family:
    return _FAMILIES[place]
