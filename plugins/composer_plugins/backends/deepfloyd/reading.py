"""Reading of the parts of a pipeline, with clear errors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from composer.arguments import integer
from composer_plugins.backends.files import first_line, require_all
from composer_plugins.backends.memory import room_for_weights

EXTRA = "pip install 'diffusion-composer[deepfloyd]'"


UNET = "UNet2DConditionModel"
_WEIGHTS = "diffusion_pytorch_model"


@dataclass(frozen=True)
class Reader:
    """Reads networks: in a dtype, to a device, from the files of a variant.

    Args:
        dtype: dtype of the weights.
        device: device of the networks.
        offload: keep them in the CPU's memory, and move each layer to the device when it runs.
        variant: variant of the files, such as "fp16".
    """

    dtype: torch.dtype
    device: torch.device
    offload: bool = False
    variant: str | None = None

    @property
    def _weights(self) -> tuple[str, str]:
        """Patterns of the files of weights: one, or several parts."""
        stem = _WEIGHTS if self.variant is None else f"{_WEIGHTS}.{self.variant}"
        return f"{stem}.safetensors", f"{stem}-*.safetensors"

    def files(self, part: str) -> list[str]:
        """Patterns of the weights of a part of a pipeline."""
        return [f"{part}/{pattern}" for pattern in (*self._weights, "*.index*.json")]

    def network(self, place: Path, kind: str) -> nn.Module:
        """The network in a folder, of a class of diffusers, for evaluation and on its device.

        Raises:
            ValueError: the weights are missing, damaged, or of another model.
        """
        import diffusers  # noqa: PLC0415  # slow to import

        self._require_weights(place)
        lighter = "Load them with dtype='bfloat16' or offload=True"
        with readable(place), room_for_weights(place, lighter):
            network, found = getattr(diffusers, kind).from_pretrained(
                place,
                dtype=self.dtype,
                variant=self.variant,
                local_files_only=True,
                use_safetensors=True,
                low_cpu_mem_usage=importable("accelerate"),
                output_loading_info=True,
            )
        require_all(found["missing_keys"], place)
        evaluated: nn.Module = network.eval().requires_grad_(False)
        if not self.offload:
            with room_for_weights(place, lighter):
                return nn.Module.to(evaluated, self.device)
        require_packages("offload=True", "accelerate")
        from accelerate import cpu_offload  # noqa: PLC0415  # optional

        offloaded: nn.Module = cpu_offload(evaluated, self.device)
        return offloaded

    def _require_weights(self, place: Path) -> None:
        if (place / "config.json").is_file() and not any(
            file for pattern in self._weights for file in place.glob(pattern)
        ):
            others = ", ".join(sorted(file.name for file in place.glob("*.safetensors")))
            advice = f"It has {others}: choose another variant" if others else "Download it again"
            raise ValueError(f"{place} has no {self._weights[0]}. {advice}.")


@contextmanager
def readable(place: Path) -> Iterator[None]:
    """A context for reading one part of a pipeline, the folder ``place``.

    Raises:
        ValueError: in place of whatever the libraries raise.
    """
    require_config(place)
    with legible(place):
        yield


@contextmanager
def legible(place: Path) -> Iterator[None]:
    """Like :func:`readable`, for a folder that holds several parts.

    Raises:
        ValueError: in place of whatever the libraries raise.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # a RuntimeError, but not of the files
    except (OSError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(f"{place} cannot be read ({reason(error)}). Download it again.") from error


def require_config(place: Path) -> Path:
    """The configuration in the folder of one part of a pipeline."""
    file = place / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{place.parent} has no {place.name}/config.json. Name a folder written by "
            "save_pretrained of the whole pipeline, or a model of the hub as 'owner/name', which "
            "without a network must be in its cache."
        )
    return file


def reason(error: Exception) -> str:
    """A short reason from the error of a library."""
    words = str(error)
    if "ignore_mismatched_sizes" in words:  # advises it, which would leave weights random
        return "its weights have other shapes than config.json asks for"
    if "Unable to load weights" in words or "HeaderTooLarge" in words:
        return "its weights are damaged"
    return first_line(error)


def require_packages(purpose: str, *names: str, advice: str = EXTRA) -> None:
    """Raise a ValueError that names missing packages, because the libraries' own errors mislead."""
    missing = [name for name in names if not importable(name)]
    if missing:
        raise ValueError(f"{purpose} needs {' and '.join(missing)}: {advice}")


def importable(name: str) -> bool:
    """Whether an optional package is installed."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def halved(config: Mapping[str, Any]) -> int:
    """The factor by which a network of this configuration divides the sides of an image."""
    return int(2 ** (len(config["block_out_channels"]) - 1))


def checked_size(size: int, factor: int) -> int:
    """The checked side of images, a multiple of ``factor``."""
    chosen = integer(size, "size", least=1)
    if chosen % factor:
        raise ValueError(f"size must be a multiple of {factor}, got {chosen}.")
    return chosen
