"""What a backend may declare beyond :class:`composer.Backend`: attributes, each with its default.

=====================================  ==========================================================
``schedule.noise_scale``               the standard deviation of the initial noise; 1
``models``                             the names of its further models; none
``networks``                           its networks, {name: nn.Module}; none (composer.weights)
``differentiable``                     whether gradients flow through ``evaluate``, and the
                                       ``decode`` of a latent model; False
``guidance``                           the guidance scale that a distilled model takes; None
``low_res_schedule``                   the schedule that noises the small image; None
``image_shape``, ``encode_image``,     those of a latent model (composer.latents)
``decode``
``spread``                             who computes its rows; itself (composer.protocols)
=====================================  ==========================================================
"""

from __future__ import annotations

from typing import Any

from composer.schedules import DiscreteSchedule


def models_of(backend: Any) -> tuple[str, ...]:
    """The names of the further models behind a backend: its optional attribute ``models``."""
    return tuple(getattr(backend, "models", ()))


def noise_scale_of(backend: Any) -> float:
    """The standard deviation of the initial noise: the schedule's ``noise_scale``, if any, or 1."""
    return float(getattr(backend.schedule, "noise_scale", 1.0))


def low_res_schedule_of(backend: Any) -> DiscreteSchedule | None:
    """The schedule that noises the low-resolution image of an enlarging model: its optional
    attribute ``low_res_schedule``; None for other models."""
    schedule: DiscreteSchedule | None = getattr(backend, "low_res_schedule", None)
    return schedule


def guidance_of(backend: Any) -> float | None:
    """The guidance scale that a distilled model takes as an input: its optional attribute
    ``guidance``, which ``beside["guidance"]`` (B,) replaces; None for a model that takes none."""
    scale: float | None = getattr(backend, "guidance", None)
    return scale


def differentiable_of(backend: Any) -> bool:
    """Whether gradients flow through ``evaluate`` from its output to x, and through the ``decode``
    of a latent model: the optional attribute ``differentiable``, which ``check_backend`` proves."""
    return bool(getattr(backend, "differentiable", False))
