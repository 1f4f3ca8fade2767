"""The meaning of a model's output: one row (a, b), one formula.

On the path x = alpha * x_0 + sigma * noise every usual network predicts a * x_0 + b * noise:

    ============================  =======  ======
    prediction                    a        b
    ============================  =======  ======
    epsilon                       0        1
    sample (x_0)                  1        0
    v (Salimans & Ho 2022)        -sigma   alpha
    flow velocity (x_0 - noise)   1        -1
    ============================  =======  ======

Two equations in two unknowns, so with d = alpha * b - a * sigma

    noise = (alpha * out - a * x) / d,      x_0 = (b * x - sigma * out) / d.

d vanishes only where the output does not depend on one unknown (epsilon at alpha = 0, sample at
sigma = 0). The formula then returns that unknown's prior mean, zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Amplitude = Tensor | float
Row = tuple[Amplitude, Amplitude]


@dataclass(frozen=True)
class Prediction:
    """A prediction type.

    Args:
        name: its name in configurations.
        row: (alpha, sigma) -> (a, b), for floats and for tensors. Write it as a function of a
            module, not as a lambda, so that it can be pickled.
    """

    name: str
    row: Callable[..., Row] = field(repr=False)

    def target(self, x0: Tensor, noise: Tensor, alpha: Amplitude, sigma: Amplitude) -> Tensor:
        """a * x_0 + b * noise: what the network is trained to output. Shapes (B, C, H, W)."""
        a, b = self.row(alpha, sigma)
        return a * x0 + b * noise

    def noise(self, out: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """The noise that an output ``out`` at ``x`` implies; shapes (B, C, H, W)."""
        a, b, d = self._solve(alpha, sigma)
        if a == 0:
            return out.to(x.dtype) if b == 1 else out / b
        if d == 0:
            return out / b if b else out * 0
        return torch.add((alpha / d) * out, x, alpha=-a / d)

    def x0(self, out: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """The clean image that an output ``out`` at ``x`` implies; shapes (B, C, H, W)."""
        a, b, d = self._solve(alpha, sigma)
        if b == 0:
            return out.to(x.dtype) if a == 1 else out / a
        if d == 0:
            return out / a if a else out * 0
        if sigma == 0:
            return x / alpha
        # Multiply by one large factor at the end. Where alpha is tiny (5e-5 at IF's first time), x
        # and the noise almost cancel, and two large factors would multiply rounding by 20000.
        return torch.add(out, x, alpha=-b / sigma) * (-sigma / d)

    def _solve(self, alpha: float, sigma: float) -> tuple[float, float, float]:
        a, b = map(float, self.row(alpha, sigma))
        return a, b, alpha * b - a * sigma


def mixed(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """a x + b y of two images (B, C, H, W), with one new tensor, which is fast for large images."""
    return (a * x).add_(y, alpha=b)


def _epsilon(alpha: Amplitude, sigma: Amplitude) -> Row:
    return 0.0, 1.0


def _sample(alpha: Amplitude, sigma: Amplitude) -> Row:
    return 1.0, 0.0


def _v(alpha: Amplitude, sigma: Amplitude) -> Row:
    return -sigma, alpha


def _flow(alpha: Amplitude, sigma: Amplitude) -> Row:
    return 1.0, -1.0


EPSILON = Prediction("epsilon", _epsilon)
SAMPLE = Prediction("sample", _sample)
V = Prediction("v", _v)
FLOW = Prediction("flow", _flow)

PREDICTIONS: dict[str, Prediction] = {p.name: p for p in (EPSILON, SAMPLE, V, FLOW)}
