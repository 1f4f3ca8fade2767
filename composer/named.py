"""Devices, dtypes and predictions, given as torch's objects or by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch

from composer.arguments import choice, integer
from composer.errors import owned, shown
from composer.predictions import PREDICTIONS, Prediction
from composer.protocols import Backend
from composer.schedules import Schedule

Device = str | torch.device
DType = str | torch.dtype
_DTYPES = ("float32", "bfloat16", "float16", "float64")


def device_of(device: Device) -> torch.device:
    """A device, given itself or by name: "cpu", "cuda", "cuda:1", "mps" or "auto".

    "auto" is the first of cuda, mps and cpu that the machine has.

    Raises:
        ValueError: the name is unknown, or this machine lacks the device.
    """
    try:
        if not isinstance(device, str | torch.device):
            raise TypeError("torch takes a number as that of a GPU")
        place = _best_device() if device == "auto" else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be a name that torch knows, got {shown(device)}. Use 'cpu' or 'auto'."
        ) from error
    present = torch.accelerator.current_accelerator(check_available=True)
    count = 0 if present is None or present.type != place.type else torch.accelerator.device_count()
    if place.type != "cpu" and (place.index or 0) >= count:
        raise ValueError(f"device {str(device)!r} is not available. Use 'cpu' or 'auto'.")
    return place


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def dtype_of(dtype: DType, known: Iterable[str] = _DTYPES) -> torch.dtype:
    """A dtype, given itself or by a name such as "float16" or "torch.float16".

    Args:
        dtype: the dtype or its name.
        known: the names to choose from.

    Raises:
        ValueError: the dtype is not among the known ones.
    """
    named = str(dtype) if isinstance(dtype, torch.dtype) else dtype
    name = named.removeprefix("torch.") if isinstance(named, str) else named
    return cast(torch.dtype, getattr(torch, choice(name, "dtype", known)))


def prediction_of(prediction: str | Prediction) -> Prediction:
    """A prediction type, given itself or by name: "epsilon", "sample", "v" or "flow".

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(prediction, Prediction):
        return prediction
    return PREDICTIONS[choice(prediction, "prediction", PREDICTIONS)]


def shape_of(shape: Any) -> tuple[int, int, int]:
    """Return (C, H, W) as a tuple of integers.

    Raises:
        TypeError, ValueError: it is not three positive integers.
    """
    try:
        sizes = tuple(integer(size, "each of shape", least=1) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) != 3:
        raise TypeError(f"shape must be (C, H, W), three integers, got {shown(shape)}.")
    return shape if type(shape) is tuple and shape == sizes else sizes


def schedule_of(schedule: Any) -> Schedule:
    """Return the schedule.

    Raises:
        TypeError: it is not a Schedule.
    """
    if lacking := [name for name in _PATH if not callable(getattr(schedule, name, None))]:
        raise TypeError(
            f"schedule must be a Schedule, got {type(schedule).__name__}, which lacks "
            f"{', '.join(lacking)}. Give for example FlowSchedule() or DiscreteSchedule.linear()."
        )
    return cast(Schedule, schedule)


def with_objects(backend: Backend) -> Backend:
    """The backend, with torch's objects in place of names and lists.

    A backend that has the objects already is returned itself.

    Raises:
        TypeError, ValueError: an attribute has a wrong type, or is an unknown name.
    """
    changed: dict[str, Any] = {}
    for name, meant in _MEANT.items():
        given = getattr(backend, name)
        with owned(type(backend).__name__):
            read = meant(given)
        if read is not given:
            changed[name] = read
    return cast(Backend, _Read(backend, changed)) if changed else backend


class _Read:
    """A backend with some attributes replaced by the objects that they name."""

    def __init__(self, backend: Backend, objects: dict[str, Any]) -> None:
        vars(self).update(objects, _backend=backend)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_backend":  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self._backend, name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._backend), *vars(self)})

    def __repr__(self) -> str:
        return repr(self._backend)

    def __reduce__(self) -> tuple[Any, ...]:
        return with_objects, (self._backend,)


def _device(device: Any) -> torch.device:
    if isinstance(device, torch.device):
        return device  # available, because the network is there; torch may not list it
    if not isinstance(device, str):
        raise TypeError(f"device must be a torch.device or its name, got {shown(device)}.")
    return device_of(device)


def _dtype(dtype: Any) -> torch.dtype:
    return dtype if isinstance(dtype, torch.dtype) else dtype_of(dtype)


_PATH = ("at", "times", "noise_level", "add_noise")
_MEANT: Mapping[str, Callable[[Any], Any]] = {
    "device": _device,
    "dtype": _dtype,
    "prediction": prediction_of,
    "shape": shape_of,
    "schedule": schedule_of,
}
