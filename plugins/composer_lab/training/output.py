"""The outputs of a training beside its checkpoint: the loss curve, and a folder to share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from composer.writing import make_folder, write_atomically
from composer_lab.training.weights import half_weights
from composer_plugins.backends.checksum import save_with_checksum

WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_network(network: Any, folder: Path) -> None:
    """Write a network of diffusers' kind as float16 safetensors, and its config.json.

    Like ``save_pretrained``, but it writes each file atomically.
    """
    weights = half_weights(network)
    make_folder(folder)

    def configure(file: Path) -> None:
        file.write_text(network.to_json_string())
        forget_origin(file)

    write_atomically(folder / "config.json", configure)
    write_atomically(folder / WEIGHTS, lambda file: save_with_checksum(weights, file))


def forget_origin(config: Path) -> None:
    """Remove from a JSON configuration the local path that diffusers read the weights from."""
    kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
    config.write_text(json.dumps(kept, indent=2))


def running_mean(values: Sequence[float], window: int) -> tuple[Tensor, Tensor]:
    """Steps and running means; each mean is placed at the middle of its ``window`` steps."""
    mean = torch.tensor(values, dtype=torch.float32).unfold(0, window, 1).mean(1)
    first = (window - 1) // 2
    return torch.arange(first, first + len(mean)), mean


def plot_loss(losses: list[float], file: Path, title: str) -> None:
    """Plot the loss of each step, and its running mean over 100 steps."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(losses, linewidth=0.4, alpha=0.4, label="each step")
    window = max(1, min(100, len(losses) // 10))
    axes.plot(*running_mean(losses, window), label=f"mean of {window}")
    axes.set(xlabel="step", ylabel="mean squared error", yscale="log", title=title)
    axes.legend()
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=150))
