"""An independent classifier of digits that judges samples. It never guides sampling."""

from __future__ import annotations

import hashlib
from importlib.resources import as_file, files
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save, save_file
from torch import Tensor, nn

from composer.writing import make_folder, write_atomically

JUDGE = "judge.safetensors"


class Judge(nn.Module):
    """A plain CNN, 0.12 M parameters: (B, 1, 28, 28) in [-1, 1] -> logits (B, 10)."""

    read_from: str | None = None
    """sha256 of the file, if it was read from one."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, 1, 1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(48, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 9, 128), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Features (B, 128), which the last layer reads, of images clipped to [-1, 1] first."""
        self.eval()
        parts = x.detach().float().clamp(-1, 1).split(1000)
        return torch.cat([self.features(part) for part in parts])

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """The most likely digit (B,) of images (B, 1, 28, 28), clipped to [-1, 1] first."""
        digits: Tensor = self.head(self.embed(x)).argmax(1)
        return digits

    def save(self, file: Path) -> None:
        """Write float16 safetensors."""
        make_folder(file.parent)
        write_atomically(file, lambda path: save_file(self.half_weights(), path))

    def half_weights(self) -> dict[str, Tensor]:
        """The weights that :meth:`save` writes."""
        return {k: v.half() for k, v in self.state_dict().items()}


def load_judge(file: Path | None = None) -> Judge:
    """The judge from a file, by default the shipped one, which only ever reports.

    Raises:
        ValueError: the file does not hold a judge.
    """
    if file is not None:
        return _read(file)
    with as_file(files(__package__) / "weights" / JUDGE) as shipped:
        return _read(shipped)


def judge_hash(judge: Judge) -> str:
    """sha256 of the judge's file. Results of different judges cannot be compared.

    For a judge that was not read from a file, the sha256 of the file that ``save`` would write.
    """
    return judge.read_from or hashlib.sha256(save(judge.half_weights())).hexdigest()


def _read(file: Path) -> Judge:
    judge = Judge()
    try:
        content = file.read_bytes()
        judge.load_state_dict(load(content))
    except (OSError, RuntimeError, SafetensorError) as error:
        what = str(error).splitlines()[0].rstrip(".:")
        raise ValueError(
            f"{file} must hold a judge ({what}). Name a file that `composer train judge` wrote."
        ) from error
    judge.read_from = hashlib.sha256(content).hexdigest()
    return judge.float().eval().requires_grad_(False)
