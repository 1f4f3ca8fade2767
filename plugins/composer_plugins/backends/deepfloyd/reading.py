"""What goes wrong when parts of a pipeline are read, as sentences."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

EXTRA = "pip install 'diffusion-composer[deepfloyd]'"


@contextmanager
def readable(place: Path) -> Iterator[None]:
    """Around the reading of one part of a pipeline, the folder ``place``.

    Raises:
        ValueError: in place of whatever the libraries raise.
    """
    if not (place / "config.json").is_file():
        raise ValueError(
            f"{place.parent} has no {place.name}/config.json; name a folder of DeepFloyd IF as "
            "diffusers saves it, or a model of the hub such as 'DeepFloyd/IF-I-XL-v1.0'"
        )
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{place} cannot be read ({reason}); fetch it anew") from error


def require_all(missing: Collection[str], place: Path) -> None:
    """Refuse weights that lack tensors: the libraries would leave them random, and warn."""
    if missing:
        raise ValueError(
            f"the weights in {place} lack {len(missing)} of the tensors that config.json asks for, "
            f"such as {sorted(missing)[0]}; the two belong to different models"
        )


def require_packages(purpose: str, *names: str) -> None:
    """Refuse, by name, packages that are not there; what the libraries say of it misleads."""
    missing = [name for name in names if not importable(name)]
    if missing:
        raise ValueError(f"{purpose} needs {' and '.join(missing)}: {EXTRA}")


def importable(name: str) -> bool:
    """Whether an optional package is there."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
