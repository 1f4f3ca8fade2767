"""The gradient of a backend's output, against finite differences."""

from __future__ import annotations

import torch
from torch import Tensor

from composer.model import batch_of
from composer.protocols import Backend
from composer.requests import Request
from composer.testing.probe import noise

DIRECTIONS = 3


def bent(backend: Backend, request: Request) -> str:
    """Compare the gradient of a random sum of outputs with differences along random directions.

    An error e of the gradient shows along u ~ N(0, I) as e . u, of about the size |e|. It may be
    1e-6 of the gradient in float64, and 5 % in narrower dtypes, where differences round. The sums
    are in float64.
    """
    x, count = request.x, len(request.x)
    weights, *directions = noise(backend.shape, 1 + DIRECTIONS, count).to(x)

    def total(x: Tensor) -> Tensor:
        output = backend.evaluate(batch_of([request.replace(x=x)]))
        products: Tensor = output.prediction.double() * weights.double()
        return products.sum()

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
