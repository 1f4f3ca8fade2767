"""Training the classifier that judges samples of digits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from composer_plugins.backends.mnist.data import to_model
from composer_plugins.backends.mnist.judge import Judge


def train_judge(images: Tensor, labels: Tensor, epochs: int, seed: int = 0) -> Judge:
    """Train on uint8 images (N, 28, 28), shifted by up to two pixels and lightly noised."""
    torch.manual_seed(seed)
    judge = Judge().train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(128)[: len(images) // 128]:
            x = F.pad(to_model(images[chosen]), (2,) * 4, value=-1)
            top, left = (int(v) for v in torch.randint(0, 5, (2,)))
            x = x[..., top : top + 28, left : left + 28]
            x = x + 0.1 * torch.rand(()) * torch.randn_like(x)
            loss = F.cross_entropy(judge(x), labels[chosen], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


def accuracy(judge: Judge, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images (N, 28, 28) read as labelled."""
    return float((judge.classify(to_model(images)) == labels).float().mean())
