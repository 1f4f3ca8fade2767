"""Schedulers of diffusers in recipes, by name and settings.

Only a name in the list below makes this module import diffusers.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from composer.errors import UnknownNameError, shown
from composer.limits import MAX_SETTING

SCHEDULERS = frozenset(
    [
        "CogVideoXDDIMScheduler",
        "DDIMInverseScheduler",
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepInverseScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EDMDPMSolverMultistepScheduler",
        "EDMEulerScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
        "HeunDiscreteScheduler",
        "IPNDMScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LCMScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "SASolverScheduler",
        "TCDScheduler",
        "UnCLIPScheduler",
        "UniPCMultistepScheduler",
    ]
)
"""The schedulers that :class:`~composer.solvers.DiffusersSolver` drives."""


def settings_of(value: object) -> dict[str, Any] | None:
    """The settings of a diffusers scheduler in the list; None for any other object."""
    kind = type(value)
    diffusers = sys.modules.get("diffusers")
    if kind.__name__ not in SCHEDULERS or getattr(diffusers, kind.__name__, None) is not kind:
        return None
    written = json.loads(value.to_json_string())  # type: ignore[attr-defined]
    known = _known(kind)
    return {name: setting for name, setting in written.items() if name in known}


def scheduler_of(name: Any, settings: Any) -> Any:
    """The scheduler of this name and these settings.

    Raises:
        UnknownNameError: the name is not in the list.
        ValueError: the settings are too large, or the scheduler does not take them.
    """
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise UnknownNameError("scheduler", name, SCHEDULERS)
    if not isinstance(settings, Mapping):
        raise ValueError(f"Recipe: a scheduler's config must be a dict, got {shown(settings)}.")
    for setting, value in settings.items():
        _require_small(setting, value)

    import diffusers  # noqa: PLC0415  # takes seconds, and few recipes need it

    kind = getattr(diffusers, name)
    known = _known(kind)
    # Private settings state the version and class that wrote them, and have no effect.
    if more := [key for key in settings if key not in known and not key.startswith("_")]:
        warnings.warn(
            f"Recipe: {name} of the installed diffusers has no settings {shown(more)}, which are "
            "ignored.",
            stacklevel=2,
        )
    return _made(kind, {key: value for key, value in settings.items() if key in known})


def _made(kind: type, settings: Mapping[str, Any]) -> Any:
    """A scheduler; a ValueError names the first setting that its class does not accept alone."""
    try:
        return kind(**settings)
    except Exception as error:
        for setting, value in settings.items():
            if not _accepts(kind, {setting: value}):
                raise ValueError(
                    f"Recipe: {kind.__name__} does not accept {setting}={shown(value)}. Give a "
                    "value that diffusers documents."
                ) from error
        raise


def _accepts(kind: type, settings: Mapping[str, Any]) -> bool:
    try:
        kind(**settings)
    except Exception:
        return False
    return True


@functools.cache
def _known(kind: type) -> frozenset[str]:
    parameters = inspect.signature(kind).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)


def _require_small(setting: str, value: Any) -> None:
    values = value if isinstance(value, list | tuple) else [value]
    finite = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]
    if len(values) > MAX_SETTING or any(abs(v) > MAX_SETTING for v in finite):
        raise ValueError(
            f"Recipe: {shown(setting)} of a scheduler must be at most {MAX_SETTING}, in number "
            f"and in size, got {shown(value)}."
        )
