"""Classifiers of digits with unlike architectures: a panel of judges, and one that chooses.

A judge reports and never chooses or steers; the chooser steers and chooses and never reports. It
has the architecture and the training of no judge, because two networks that are alike agree on
images that a third misreads.

Each network maps images (B, 1, 28, 28) in [-1, 1] to logits (B, 10). ``composer train judge
--network NAME`` trains it.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from composer import UnknownNameError


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """A residual block of two convolutions (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _conv(inputs, outputs, stride), nn.ReLU(), _conv(outputs, outputs)
        )
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.skip(x))


class Residual(nn.Sequential):
    """A residual network, 0.18 M parameters."""

    def __init__(self) -> None:
        super().__init__(
            _conv(1, 16), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
            Block(64, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip


class LeNet(nn.Sequential):
    """Large kernels and no normalisation, 0.43 M parameters (LeCun et al. 1998)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 20, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(20, 50, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10),
        )  # fmt: skip


class Strided(nn.Sequential):
    """Convolutions that step in place of pooling, and group normalisation, 0.09 M parameters."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 24, 5, 2, 2), nn.GroupNorm(4, 24), nn.GELU(),
            nn.Conv2d(24, 48, 3, 2, 1), nn.GroupNorm(4, 48), nn.GELU(),
            nn.Conv2d(48, 64, 3, 1, 1), nn.GroupNorm(4, 64), nn.GELU(),
            nn.Conv2d(64, 64, 3, 2, 1), nn.GELU(), nn.Flatten(), nn.Linear(1024, 10),
        )  # fmt: skip


class Shallow(nn.Sequential):
    """Two convolutions without padding, and dropout, 0.3 M parameters."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.25), nn.Linear(4608, 64), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(64, 10),
        )  # fmt: skip


JUDGES: dict[str, type[nn.Module]] = {"residual": Residual, "lenet": LeNet, "shallow": Shallow}
"""The networks that report."""
CHOOSER = "strided"
"""The network that steers and chooses."""
NETWORKS: dict[str, type[nn.Module]] = {**JUDGES, CHOOSER: Strided}


@functools.cache
def load_reader(name: str) -> nn.Module:
    """A shipped network of NETWORKS, frozen."""
    if name not in NETWORKS:
        raise UnknownNameError("network", name, NETWORKS)
    with as_file(files(__package__) / "weights" / "readers" / f"{name}.safetensors") as file:
        return read_reader(name, file)


def read_reader(name: str, file: Path) -> nn.Module:
    """A network of NETWORKS from a file that ``composer train judge --network`` wrote, frozen.

    Raises:
        ValueError: the file does not hold this network.
    """
    network = NETWORKS[name]()
    try:
        network.load_state_dict(load(file.read_bytes()))
    except (OSError, RuntimeError, SafetensorError) as error:
        what = str(error).splitlines()[0].rstrip(".:")
        raise ValueError(
            f"{file} must hold the network {name!r} ({what}). Name a file that `composer train "
            f"judge --network {name}` wrote."
        ) from error
    return network.float().eval().requires_grad_(False)


def load_judges() -> dict[str, nn.Module]:
    """{name: network} of the panel that reports."""
    return {name: load_reader(name) for name in JUDGES}


@functools.cache
def reader_hash(name: str) -> str:
    """sha256 of a shipped network's file. Results of different judges cannot be compared."""
    weights = files(__package__) / "weights" / "readers" / f"{name}.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()
