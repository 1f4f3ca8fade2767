"""Training the networks that judge digits, and the one that steers and chooses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from composer.writing import make_folder, write_atomically
from composer_lab.training.augmentation import affine, elastic, erased
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
        radius: of the attacks on training images, see :func:`attacked`; 0 for none. A network that
            withstands them has gradients that people can see: they draw strokes where those of
            other networks draw specks (Tsipras et al. 2019, "Robustness May Be at Odds with
            Accuracy", arXiv 1805.12152).
    """

    change: Callable[[Tensor], Tensor]
    epochs: int
    seed: int
    radius: float = 0.0


TRAININGS = {
    "residual": Training(lambda x: affine(x, 15, 0.15, 0.15, 2), 3, 825),
    "lenet": Training(lambda x: elastic(x, 1.2), 4, 472),
    "shallow": Training(lambda x: erased(x, 8), 4, 730),
    "strided": Training(lambda x: affine(x, 15, 0.15, 0.15, 2.5), 3, 719, 3.0),
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
    grown = (step / (0.3 * steps) for step in range(1, steps))  # attacks, in 30 % of the training
    for _ in range(rounds):
        for chosen in torch.randperm(len(images)).split(BATCH)[:count]:
            x, digits = training.change(to_model(images[chosen])), labels[chosen]
            if training.radius:
                x = attacked(network, x, digits, training.radius * min(1.0, next(grown)))
            loss = F.cross_entropy(network(x), digits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def attacked(
    network: nn.Module, x: Tensor, labels: Tensor, radius: float, climbs: int = 2
) -> Tensor:
    """Images within ``radius`` of ``x`` (B, C, H, W) in the Euclidean norm, and in [-1, 1], that
    the network misreads if it can.

    Projected gradient ascent of the loss from a random place: Madry et al. 2018, arXiv 1706.06083.
    """
    change = radius * torch.rand(len(x), 1, 1, 1) * _unit(torch.randn_like(x))
    for _ in range(climbs):
        change.requires_grad_()
        loss = F.cross_entropy(network((x + change).clamp(-1, 1)), labels)
        (gradient,) = torch.autograd.grad(loss, change)
        change = change.detach() + 1.5 * radius / climbs * _unit(gradient)
        change = change * (radius / _length(change).clamp_min(radius))
    return (x + change).clamp(-1, 1)


def _unit(x: Tensor) -> Tensor:
    """Each image at length 1."""
    return x / _length(x).clamp_min(1e-12)


def _length(x: Tensor) -> Tensor:
    return x.square().sum((1, 2, 3), keepdim=True).sqrt()


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
