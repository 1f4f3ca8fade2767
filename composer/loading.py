"""``composer.load_backend``: load a backend by name, typed for the built-in names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from composer.named import Device, DType
from composer.protocols import Backend
from composer.registry import installed, load_from

Place = str | Path
Known = Literal[
    "mnist",
    "mnist-ddpm",
    "mnist-few-step",
    "mnist-latent",
    "nouns",
    "with_weak",
    "canvas",
    "diffusers",
    "deepfloyd",
    "latent",
    "prx",
]


class NoSuchOption:
    """The type that a type checker shows for a call of :func:`load_backend` that raises.

    A built-in backend does not have the option, or not with the value given.
    """


# The overloads overlap on purpose: what none of the others takes is the last but one's.
@overload
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["mnist", "mnist-ddpm", "mnist-few-step"],
    *,
    weights: str | None = None,
    device: Device = "cpu",
    dtype: DType = "float32",
    share: bool = True,
) -> Backend: ...
@overload
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["nouns", "mnist-latent"],
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
def load_backend(  # type: ignore[overload-overlap]
    name: Literal["canvas"],
    *,
    model: str = "mnist",
    size: Sequence[int] = (28, 112),
    overlap: float = 0.5,
    wrap: Literal["none", "horizontal", "both"] = "none",
    window: Literal["flat", "smooth"] = "smooth",
    options: Mapping[str, Any] | None = None,
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
def load_backend(
    name: Literal["latent"],
    *,
    model: Place,
    size: int | Sequence[int] | None = None,
    embeddings: Place | None = None,
    guidance: float | None = None,
    dtype: DType = "float32",
    device: Device = "cpu",
    offload: bool = False,
    variant: str | None = None,
    vae_slicing: bool = True,
    vae_tiling: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
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
        TypeError: an option is unknown, or a required one is missing.
    """
    return load_from(installed(), name, options)
