"""The gradient of a function of images, against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from composer.testing.probe import noise

DIRECTIONS = 3


def bent(function: Callable[[Tensor], Tensor], x: Tensor) -> str:
    """Compare the gradient of a random sum of outputs with differences along random directions.

    An error e of the gradient shows along u ~ N(0, I) as e . u, of about the size |e|. It may be
    1e-6 of the gradient in float64, and 5 % in narrower dtypes, where differences round. The sums
    are in float64.

    Args:
        function: (B, C, H, W) -> (B, C', H', W').
        x: (B, C, H, W).
    """
    count = len(x)
    directions = noise(x.shape[1:], DIRECTIONS, count).to(x)

    def total(x: Tensor) -> Tensor:
        output = function(x).double()
        weights = noise(output.shape[1:], count, seed=1).to(output)
        return (output * weights).sum()

    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        whole = total(leaf)
        gradient = torch.autograd.grad(whole, leaf)[0] if whole.requires_grad else None
    if gradient is None:
        return "its output has no gradient"
    length = float(gradient.double().norm())
    allowed = (1e-6 if x.dtype == torch.float64 else 0.05) * length
    h = torch.finfo(x.dtype).eps ** (1 / 3)
    with torch.no_grad():
        for direction in directions:
            seen = (total(x + h * direction) - total(x - h * direction)) / (2 * h)
            gap = abs(float(seen - (gradient.double() * direction.double()).sum()))
            if not gap <= allowed:
                return (
                    f"its gradient, of length {length:.2g}, is off by {gap:.2g} along a direction"
                )
    return ""
