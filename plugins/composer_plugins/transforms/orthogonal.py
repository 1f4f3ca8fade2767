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
"""Of Q Q^T = I, entry by entry, in float64."""

# What is mixed goes to the last dimension, and back to the shape of the image.
_OVER: dict[str, tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "channels": ("channels", lambda x: x.movedim(-3, -1), lambda y: y.movedim(-1, -3)),
    "pixels": ("pixels", lambda x: x.flatten(-2), lambda y: y),
    "image": ("numbers", lambda x: x.flatten(-3), lambda y: y),
}


@dataclass(frozen=True, eq=False)
class Orthogonal(Transform):
    """x -> Q x for your own orthogonal matrix Q.

    A variance goes through the squared entries, (Q o Q) v: the diagonal of Q diag(v) Q^T, the
    variances that the view of independent noise has. Rows of Q o Q sum to one, so it never leaves
    the range of v, which learned coefficients between two log-variances need too; for permutations
    and signs it is v permuted. Correlations that Q brings into the noise are not in it, and
    carrying it there and back smooths it unless Q is such a one.

    Args:
        matrix: (n, n), rows of a list or a tensor; kept as a tensor in float64.
        over: what Q mixes: "pixels" (n = H*W, each channel alike), "channels" (n = C) or "image"
            (n = C*H*W), counted as they lie in memory.
    """

    matrix: Sequence[Sequence[float]] | Tensor
    over: Literal["channels", "pixels", "image"] = "pixels"

    def __post_init__(self) -> None:
        choice(self.over, "Orthogonal: over", _OVER)
        try:
            # A cast to float64 would drop imaginary parts with no more than a warning.
            given = torch.as_tensor(self.matrix, dtype=torch.complex128)
            if given.imag.any():
                raise TypeError("it has complex ones")
            q = given.real.clone()
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise TypeError(f"Orthogonal: matrix must be rows of numbers ({error})") from None
        if q.ndim != 2 or q.shape[0] != q.shape[1] or not len(q):
            raise ValueError(f"Orthogonal: matrix must be square, got the shape {tuple(q.shape)}")
        product = q @ q.T
        product.diagonal().sub_(1)
        gap = product.abs().max().item()
        if not gap < TOLERANCE:
            raise ValueError(
                f"Orthogonal: matrix is not orthogonal, Q Q^T is off the identity by {gap:.2g}; "
                "take for example the Q of torch.linalg.qr in float64"
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

    # Views are looked up by value at every step: numbers are read once.
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
            raise ValueError(f"Orthogonal: it accepts {self.sizes}, not {mixed.shape[-1]}")
        return back(mixed @ matrix.T.to(mixed)).reshape(x.shape).to(x.dtype)


@dataclass(frozen=True)
class ColourRotation(Moving):
    """The colours of an RGB image turn about the axis of greys, which stay; brightness is kept.

    Variances as in :class:`Orthogonal`.

    Args:
        degrees: how far; 180, the default, turns each colour into its complement, 120 moves red
            to green, green to blue and blue to red.
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
        """The colours on their way."""
        return self._turn_of(x, u)(x)

    @property
    def sizes(self) -> str:
        return "images of 3 channels"

    def _turn_of(self, x: Tensor, share: float = 1.0) -> Orthogonal:
        if x.shape[-3] != 3:
            raise ValueError(f"ColourRotation: it accepts {self.sizes}, not {x.shape[-3]}")
        return _hue(share * self.degrees)


def _hue(degrees: float) -> Orthogonal:
    """Rodrigues' formula about (1, 1, 1): the first row is (a, b, c), the others are its shifts."""
    angle = math.radians(degrees)
    third = (1 - math.cos(angle)) / 3
    side = math.sin(angle) / math.sqrt(3)
    a, b, c = math.cos(angle) + third, third - side, third + side
    return Orthogonal(((a, b, c), (c, a, b), (b, c, a)), over="channels")
