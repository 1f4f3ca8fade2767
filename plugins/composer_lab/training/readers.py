"""Training the networks that judge digits, steer them and choose among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from composer.writing import make_folder, write_atomically
from composer_lab.training.augmentation import affine, elastic, erased, noised
from composer_plugins.backends.mnist.data import to_model
from composer_plugins.backends.mnist.readers import NETWORKS

BATCH = 128


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Args:
        change: the augmentation of digits (B, 1, 28, 28).
        epochs: of all images.
        seed: of the weights, the order and the changes.
        mixed: whether to train on mixtures of two images with both labels, which keeps a network
            from being sure of what it has not seen (Zhang et al. 2017, "mixup", arXiv 1710.09412).
    """

    change: Callable[[Tensor], Tensor]
    epochs: int
    seed: int
    mixed: bool = False


TRAININGS = {
    "residual": Training(lambda x: affine(x, 15, 0.15, 0.15, 2), 3, 825),
    "lenet": Training(lambda x: elastic(x, 1.2), 4, 472),
    "shallow": Training(lambda x: erased(x, 8), 4, 730),
    "strided": Training(lambda x: noised(affine(x, 15, 0.15, 0.15, 2.5), 0.3), 4, 719, True),
}
"""{name in NETWORKS: its training}."""


def train_reader(
    name: str,
    images: Tensor,
    labels: Tensor,
    epochs: int | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Train a network of NETWORKS on uint8 images (N, 28, 28).

    Args:
        epochs, seed: in place of those of TRAININGS.
    """
    training = TRAININGS[name]
    torch.manual_seed(training.seed if seed is None else seed)
    network = NETWORKS[name]().train()
    rounds, count = epochs or training.epochs, len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    steps = rounds * count + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(rounds):
        for chosen in torch.randperm(len(images)).split(BATCH)[:count]:
            x = training.change(to_model(images[chosen]))
            target = F.one_hot(labels[chosen], 10).float()
            if training.mixed:
                x, target = mixed(x, target)
            loss = F.cross_entropy(network(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def mixed(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """w a + (1 - w) b of images and targets, b another order of them, w ~ Beta(.3, .3)."""
    weight = torch.distributions.Beta(0.3, 0.3).sample()
    order = torch.randperm(len(x))
    return (
        weight * x + (1 - weight) * x[order],
        weight * target + (1 - weight) * target[order],
    )


@torch.no_grad()
def reader_accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images (N, 28, 28) read as labelled."""
    read = torch.cat([network(part).argmax(1) for part in to_model(images).split(1000)])
    return float((read == labels).float().mean())


def save_reader(network: nn.Module, file: Path) -> None:
    """Write float16 safetensors."""
    weights = {k: _half(v).contiguous() for k, v in network.state_dict().items()}
    make_folder(file.parent)
    write_atomically(file, lambda path: save_file(weights, path))


def _half(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value
