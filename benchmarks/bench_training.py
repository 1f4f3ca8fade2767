"""Images a second of the Trainer beside a plain loop, on the MNIST UNet: a part of ``make bench``.

Seconds are the processor's, of this process on one thread, as in bench_deepfloyd.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from composer.predictions import FLOW
from composer.schedules import FlowSchedule
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.objective import Objective
from composer_lab.training.trainer import Trainer
from composer_plugins.backends.mnist import MnistUNet, sample_digits
from composer_plugins.backends.placement import computes_in_bf16

BATCH = 64


@dataclass
class Digits(Dataset):  # type: ignore[type-arg]
    """What torchvision's MNIST does with ToTensor: image by image, through PIL."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index].numpy(), mode="L")
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(28, 28, 1)
        return pixels.permute(2, 0, 1).contiguous().float().div(255), int(self.labels[index])


class PlainLoop:
    """The loop of the course: a DataLoader, float32, Adam as torch has it."""

    def __init__(self, unet: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.unet = unet.train()
        self.loader = DataLoader(Digits(images, labels), BATCH, shuffle=True, drop_last=True)
        self.optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3)

    def epochs(self) -> Iterator[None]:
        while True:
            for x1, labels in self.loader:
                t, x0 = torch.rand(BATCH), torch.randn_like(x1)
                dropped = torch.where(torch.rand(BATCH) < 0.1, 10, labels)
                at = t[:, None, None, None]
                out = self.unet((1 - at) * x0 + at * x1, t, dropped)
                loss = nn.functional.mse_loss(out, x1 - x0)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                loss.item()
                yield


def ours(
    unet: nn.Module, images: Tensor, labels: Tensor, folder: str, bf16: bool | None
) -> Iterator[None]:
    config = TrainingConfig(epochs=10_000, batch_size=BATCH, bf16=bf16)
    data = FixedImages(images, labels)
    trainer = Trainer(unet, Objective(FlowSchedule(), FLOW), data, 10, config, folder)
    for batch in trainer.batches(0, trainer.total_steps):
        trainer._update(batch)
        yield


def seconds(step: Callable[[], None]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def training(repeats: int) -> None:
    """Print images a second, and the ratio, by width."""
    bf16 = computes_in_bf16(torch.device("cpu"))
    print(f"(g) Training, batch {BATCH}, one thread, processor time, {repeats} pairs")
    print(f"    this processor {'computes' if bf16 else 'does not compute'} in bfloat16")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pictures, labels = sample_digits()
    images = ((pictures[:, 0] + 1) * 127.5).round().to(torch.uint8)
    # As large as MNIST, so that shuffling and indexing cost what they do there.
    images, labels = images.repeat(200, 1, 1), labels.repeat(200)
    for width in (64, 32, 8):
        for precision, choice in (("by default", None), ("float32", False)):
            with tempfile.TemporaryDirectory() as folder:
                mine = ours(MnistUNet(hidden_size=width), images, labels, folder, choice)
                plain = PlainLoop(MnistUNet(hidden_size=width), images, labels).epochs()
                found = pairs(lambda m=mine: next(m), lambda p=plain: next(p), repeats)
            ratio = statistics.median(theirs / own for own, theirs in found)
            rates = [BATCH / statistics.median(side) for side in zip(*found, strict=True)]
            bar = "at least 2" if (width, choice) == (64, None) else "no bar"
            print(
                f"    width {width:2}, {precision:10}   {ratio:.2f} times   ({bar}; "
                f"{rates[0]:.1f} and {rates[1]:.1f} images a second)",
                flush=True,
            )
    torch.set_num_threads(threads)


def pairs(
    one: Callable[[], None], other: Callable[[], None], repeats: int
) -> list[tuple[float, float]]:
    """Seconds of both in turn; the first pair warms up and is dropped."""
    return [(seconds(one), seconds(other)) for _ in range(repeats + 1)][1:]
