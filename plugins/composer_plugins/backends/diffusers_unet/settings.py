"""Checks of a scheduler's file, most of which diffusers makes while sampling or never."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from composer.arguments import choice, finite, integer, positive, switch
from composer.errors import shown

_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
_BETAS = ("linear", "scaled_linear")
"""Schedules that run from beta_start to beta_end; others ignore these."""
_LEARNED = ("learned", "learned_range")


def require_settings(config: Mapping[str, Any]) -> None:
    """Raise an error for settings that no scheduler can follow; missing ones have defaults.

    Raises:
        ValueError, TypeError: with the key and its value.
    """
    for name, check in _CHECKS.items():
        if config.get(name) is not None and _matters(name, config):
            check(config[name], name)


def _matters(name: str, config: Mapping[str, Any]) -> bool:
    """Whether diffusers reads a setting under this configuration."""
    if name.startswith("beta_"):
        return not config.get("trained_betas") and config.get("beta_schedule", "linear") in _BETAS
    return name not in _ONLY_WITH or bool(config.get(_ONLY_WITH[name], False))


def _fraction(value: Any, name: str) -> None:
    if not 0 <= finite(value, name) <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {shown(value)}.")


def _at_least_one(value: Any, name: str) -> None:
    if finite(value, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {shown(value)}.")


_CHECKS: dict[str, Callable[[Any, str], object]] = {
    "num_train_timesteps": partial(integer, least=1),
    "steps_offset": partial(integer, least=0),
    "beta_start": _fraction,
    "beta_end": _fraction,
    "rescale_betas_zero_snr": switch,
    "variance_type": partial(choice, known=(*_VARIANCES, *_LEARNED)),
    "clip_sample": switch,
    "clip_sample_range": positive,
    "thresholding": switch,
    "dynamic_thresholding_ratio": _fraction,
    "sample_max_value": _at_least_one,
}
_ONLY_WITH = {
    "clip_sample_range": "clip_sample",
    "dynamic_thresholding_ratio": "thresholding",
    "sample_max_value": "thresholding",
}
"""Settings that mean nothing where another is off."""
