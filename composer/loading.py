"""``composer.load_backend``: a backend by name, typed for the names that come with the library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from composer.named import Device, DType
from composer.protocols import Backend
from composer.registry import installed, load_from

Place = str | Path
Known = Literal["mnist", "mnist-ddpm", "nouns", "with_weak", "diffusers", "deepfloyd", "prx"]


class NoSuchOption:
    """What a type checker says that :func:`load_backend` returns, if the backend of a known name
    has no such option, or not with such a value. It raises."""


# The overloads overlap on purpose: what none of the first six takes is the seventh's.
@overload
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["mnist", "mnist-ddpm"],
    *,
    weights: str | None = None,
    device: Device = "cpu",
    dtype: DType = "float32",
    share: bool = True,
) -> Backend: ...
@overload
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["nouns"],
    *,
    weights: Place | None = None,
    device: Device = "cpu",
    dtype: DType = "float32",
) -> Backend: ...
@overload
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["with_weak"],
    *,
    main: str = "mnist",
    weak: str = "mnist",
    weak_weights: str | None = None,
) -> Backend: ...
@overload
def load_backend(
    name: Literal["diffusers"],
    *,
    model: Place,
    device: Device = "cpu",
    dtype: DType = "float32",
    unconditional_label: int | None = None,
    scheduler: Place | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    use_safetensors: bool = True,
) -> Backend: ...
@overload
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["deepfloyd"],
    *,
    model: Place | None = None,
    stage: int = 1,
    embeddings: Place | None = None,
    dtype: DType = "float32",
    device: Device = "cpu",
    offload: bool = False,
    variant: str | None = None,
    size: int | None = None,
    local_files_only: bool = False,
    thresholding: bool = True,
    text_8bit: bool = False,
) -> Backend: ...
@overload
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["prx"],
    *,
    model: Place = "Photoroom/prxpixel-t2i",
    size: int | Sequence[int] | None = None,
    embeddings: Place | None = None,
    dtype: DType = "float32",
    device: Device = "cpu",
    offload: bool = False,
    variant: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    text_8bit: bool = False,
) -> Backend: ...
@overload
def load_backend(name: Known, **options: Any) -> NoSuchOption: ...
@overload
def load_backend(name: str, **options: Any) -> Backend: ...
def load_backend(name: str, **options: Any) -> Backend | NoSuchOption:
    """Load a registered backend.

    Args:
        name: for example "mnist" or "mnist-ddpm".
        options: the parameters of that backend's loader, checked against its signature.

    Raises:
        UnknownNameError: no such backend is registered.
        TypeError: an option that it does not have, or lacks.
    """
    return load_from(installed(), name, options)
