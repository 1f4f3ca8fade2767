"""Any orthogonal matrix as a view: of the colours, the pixels, or the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor

from composer import Transform
from composer.arguments import choice, finite
from composer_plugins.transforms.motion import Moving, wide

TOLERANCE = 1e-8
"""Largest error of an entry of Q Q^T = I in float64."""

# Reshape so that the mixed entries are the last dimension, and back.
_OVER: dict[str, tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "channels": ("channels", lambda x: x.movedim(-3, -1), lambda y: y.movedim(-1, -3)),
    "pixels": ("pixels", lambda x: x.flatten(-2), lambda y: y),
    "image": ("numbers", lambda x: x.flatten(-3), lambda y: y),
}


@dataclass(frozen=True, eq=False)
class Orthogonal(Transform):
    """x -> Q x for your own orthogonal matrix Q.

    A variance v is mapped by the squared entries, (Q o Q) v: the diagonal of Q diag(v) Q^T, the
    variance of the view of independent noise. Rows of Q o Q sum to one, so the result stays within
    the range of v, as learned coefficients between two log-variances need. For permutations and
    sign flips it is v permuted. It leaves out the correlations that Q brings into the noise; for
    any other Q, mapping v there and back smooths it.

    Args:
        matrix: (n, n), a list of rows or a tensor; stored as a tensor in float64.
        over: what Q mixes: "pixels" (n = H*W, each channel alike), "channels" (n = C) or "image"
            (n = C*H*W), counted as they lie in memory.
    """

    matrix: Sequence[Sequence[float]] | Tensor
    over: Literal["channels", "pixels", "image"] = "pixels"

    def __post_init__(self) -> None:
        choice(self.over, "Orthogonal: over", _OVER)
        try:
            # A cast to float64 would only warn when it drops imaginary parts.
            given = torch.as_tensor(self.matrix, dtype=torch.complex128)
            if given.imag.any():
                raise TypeError("it has complex entries")
            q = given.real.clone()
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise TypeError(f"Orthogonal: matrix must be rows of numbers ({error}).") from None
        if q.ndim != 2 or q.shape[0] != q.shape[1] or not len(q):
            raise ValueError(f"Orthogonal: matrix must be square, got the shape {tuple(q.shape)}.")
        product = q @ q.T
        product.diagonal().sub_(1)
        gap = product.abs().max().item()
        if not gap < TOLERANCE:
            raise ValueError(
                f"Orthogonal: matrix must be orthogonal, got Q Q^T off the identity by {gap:.2g}. "
                "Use for example the Q of torch.linalg.qr in float64."
            )
        object.__setattr__(self, "matrix", q)

    def __repr__(self) -> str:
        return f"Orthogonal({len(self.matrix)}x{len(self.matrix)} matrix, over={self.over!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Orthogonal):
            return NotImplemented
        return self is other or (self.over == other.over and torch.equal(self._q, other._q))

    def __hash__(self) -> int:
        return self._hash

    # Views are compared by value at every step, so read the numbers once.
    @cached_property
    def _hash(self) -> int:
        return hash((self._q.cpu().numpy().tobytes(), self.over))

    @property
    def _q(self) -> Tensor:
        return cast(Tensor, self.matrix)  # since __post_init__

    def __call__(self, x: Tensor) -> Tensor:
        return self._applied(self._q, x)

    def inverse(self, x: Tensor) -> Tensor:
        return self._applied(self._q.T, x)

    def view_variance(self, variance: Tensor) -> Tensor:
        return self._applied(self._q**2, variance)

    def inverse_variance(self, variance: Tensor) -> Tensor:
        return self._applied(self._q.T**2, variance)

    def accepts(self, height: int, width: int) -> bool:
        n, pixels = len(self.matrix), height * width
        fits = {"channels": True, "pixels": n == pixels, "image": pixels > 0 and n % pixels == 0}
        return height > 0 and width > 0 and fits[self.over]

    @property
    def sizes(self) -> str:
        return f"images of {len(self.matrix)} {_OVER[self.over][0]}"

    def _applied(self, matrix: Tensor, x: Tensor) -> Tensor:
        _, to_last, back = _OVER[self.over]
        mixed = to_last(wide(x))
        if mixed.shape[-1] != len(matrix):
            raise ValueError(f"Orthogonal: it accepts {self.sizes}, got {mixed.shape[-1]}.")
        return back(mixed @ matrix.T.to(mixed)).reshape(x.shape).to(x.dtype)


@dataclass(frozen=True)
class ColourRotation(Moving):
    """Turn the colours of an RGB image about the axis of greys; greys and brightness stay.

    Variances as in :class:`Orthogonal`.

    Args:
        degrees: angle; the default, 180, turns each colour into its complement, 120 moves red to
            green, green to blue and blue to red.
    """

    degrees: float = 180.0

    def __post_init__(self) -> None:
        finite(self.degrees, "ColourRotation: degrees")

    def __call__(self, x: Tensor) -> Tensor:
        return self._turn_of(x)(x)

    def inverse(self, x: Tensor) -> Tensor:
        return self._turn_of(x).inverse(x)

    def view_variance(self, variance: Tensor) -> Tensor:
        return self._turn_of(variance).view_variance(variance)

    def inverse_variance(self, variance: Tensor) -> Tensor:
        return self._turn_of(variance).inverse_variance(variance)

    def between(self, x: Tensor, u: float) -> Tensor:
        """The colours turned by a part of the angle."""
        return self._turn_of(x, u)(x)

    @property
    def sizes(self) -> str:
        return "images of 3 channels"

    def _turn_of(self, x: Tensor, share: float = 1.0) -> Orthogonal:
        if x.shape[-3] != 3:
            raise ValueError(f"ColourRotation: it accepts {self.sizes}, got {x.shape[-3]}.")
        return _hue(share * self.degrees)


def _hue(degrees: float) -> Orthogonal:
    """Rodrigues' formula about (1, 1, 1): the first row is (a, b, c), the others are its shifts."""
    angle = math.radians(degrees)
    third = (1 - math.cos(angle)) / 3
    side = math.sin(angle) / math.sqrt(3)
    a, b, c = math.cos(angle) + third, third - side, third + side
    return Orthogonal(((a, b, c), (c, a, b), (b, c, a)), over="channels")
