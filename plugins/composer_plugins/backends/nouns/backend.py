"""The backend "nouns": 32x32 pixel-art characters in colour."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from composer import Backend
from composer.named import Device, DType
from composer_plugins.backends.diffusers_unet.loading import load_diffusers
from composer_plugins.backends.files import require_name
from composer_plugins.solvers.unipc import UniPC


def load_nouns(
    weights: str | Path | None = None, device: Device = "cpu", dtype: DType = "float32"
) -> Backend:
    """Nouns, 32x32 characters in colour, by v prediction; default solver UniPC of order 2.

    A condition is the name of a head, such as "shrimp-tempura" (``nouns.head_names()`` lists all
    254), or its index. Without a condition, any head may appear.

    Args:
        weights: the folder model/ that ``composer train nouns`` wrote; None for the shipped one.
        device: a torch.device or its name, or "auto": the first there is of cuda, mps and cpu.
        dtype: of the network, float32, bfloat16, float16 or float64, as a torch.dtype or its name.
    """
    if weights is not None:
        require_name(weights, "weights")
        return _load(Path(weights), device, dtype)
    with as_file(files(__package__) / "weights") as folder:
        return _load(folder, device, dtype)


def _load(folder: Path, device: Device, dtype: DType) -> Backend:
    backend = load_diffusers(folder, device, dtype)
    # The pipeline's DDPM makes diffusers sample in many steps, as in training.
    return replace(backend, default_solver=UniPC(2))
