"""Comparison of inpainting methods: the judge reads digits with a repainted lower half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from composer import UNCONDITIONAL, Sampler
from composer.protocols import Backend
from composer_plugins.backends.mnist.judge import Judge
from composer_plugins.editing.daps import DAPS
from composer_plugins.editing.ddnm import DDNM
from composer_plugins.editing.diffpir import DiffPIR
from composer_plugins.editing.inpaint import Inpaint
from composer_plugins.editing.lanpaint import LanPaint
from composer_plugins.editing.operators import KnownPixels

MAX_ROWS = 256

METHODS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "clean": lambda digits, mask: Inpaint(digits, mask, "clean"),
    "renoise": lambda digits, mask: Inpaint(digits, mask, "renoise"),
    "repaint 5x2": lambda digits, mask: Inpaint(digits, mask, "repaint", 5, 2),
    "repaint 5x4": lambda digits, mask: Inpaint(digits, mask, "repaint", 5, 4),
    "ddnm": lambda digits, mask: DDNM(digits, KnownPixels(mask)),
    "diffpir": lambda digits, mask: DiffPIR(digits, KnownPixels(mask), 0.05, spread=0.5),
    "diffpir renewed": lambda digits, mask: DiffPIR(
        digits, KnownPixels(mask), 0.05, spread=0.5, renewal=1.0
    ),
    "daps": lambda digits, mask: DAPS(digits, KnownPixels(mask)),
    "daps ode 3": lambda digits, mask: DAPS(digits, KnownPixels(mask), ode_steps=3),
    "lanpaint 1": lambda digits, mask: LanPaint(digits, mask, 1),
    "lanpaint 3": lambda digits, mask: LanPaint(digits, mask, 3),
    "lanpaint 5": lambda digits, mask: LanPaint(digits, mask, 5),
}
"""{name: the plugin for digits (B, 1, 28, 28) and a mask (28, 28)}."""


def inpainter(backend: Backend, method: str, digits: Tensor, num_inference_steps: int) -> Sampler:
    """The sampler that repaints digits (B, 1, 28, 28) by a method of METHODS.

    Raises:
        ValueError: the method needs more steps.
    """
    plugin = METHODS[method](digits, lower_half())
    return Sampler(backend, [plugin], None, num_inference_steps, MAX_ROWS)


class Inpainted(NamedTuple):
    """Digits repainted by one method, with measures of quality.

    Attributes:
        method: its name in METHODS.
        x: (B, 1, 28, 28).
        kept: share that the judge reads as the original digit.
        known_error, unknown_error: mean |x - digit| in the known region, and in the repainted one.
        rows: network rows per image.
    """

    method: str
    x: Tensor
    kept: float
    known_error: float
    unknown_error: float
    rows: float


def lower_half() -> Tensor:
    """A mask (28, 28) of the lower half."""
    mask = torch.zeros(28, 28)
    mask[14:] = 1
    return mask


def inpainted(
    backend: Backend,
    judge: Judge,
    digits: Tensor,
    labels: Tensor,
    method: str,
    conditional: bool = True,
    num_inference_steps: int = 20,
) -> Inpainted:
    """Repaint the lower half of each digit, and judge the results.

    Args:
        digits, labels: (B, 1, 28, 28) in [-1, 1] and (B,).
        method: a name in METHODS.
        conditional: condition the model on the original digit; else on nothing.
        num_inference_steps: before the jumps and walks of the method.
    """
    mask, x, rows = lower_half(), torch.empty_like(digits), 0
    groups: Sequence[int] = sorted(set(labels.tolist())) if conditional else [-1]
    for label in groups:
        chosen = (labels == label).nonzero()[:, 0] if conditional else torch.arange(len(labels))
        sampler = inpainter(backend, method, digits[chosen], num_inference_steps)
        result = sampler.sample(label if conditional else UNCONDITIONAL, chosen.tolist())
        x[chosen], rows = result.x.to(x), rows + result.stats.rows
    gap = (x.clamp(-1, 1) - digits).abs()
    return Inpainted(
        method,
        x,
        float((judge.classify(x) == labels).float().mean()),
        float(gap[..., mask == 0].mean()),
        float(gap[..., mask == 1].mean()),
        rows / len(digits),
    )
