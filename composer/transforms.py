"""The base of views: linear, orthogonal maps of images, and the probe that proves them so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Transform(ABC):
    """An orthogonal view Q of an image: Q^T Q = I, so white noise stays white.

    Write it as a frozen dataclass whose fields are its parameters::

        @dataclass(frozen=True)
        class Flip(Transform):
            def __call__(self, x): return x.flip(-2)
            def inverse(self, x): return x.flip(-2)

    Both maps take (..., C, H, W), return a new tensor of the same shape and dtype, and leave
    their argument alone. An identity returns x itself.
    """

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Q x."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """Q^-1 x, which is Q^T x."""

    def inverse_variance(self, variance: Tensor) -> Tensor:
        """Carry a per-pixel variance back. Right as it is for permutations of pixels; override it
        where a sign flips: Var(-x) = Var(x)."""
        return self.inverse(variance)

    def accepts(self, height: int, width: int) -> bool:
        """Whether images of this size can be viewed; :attr:`sizes` says which can."""
        return height > 0 and width > 0

    @property
    def sizes(self) -> str:
        """The accepted sizes in words, for error messages."""
        return "any size"


def check_view(view: Transform, shape: tuple[int, int, int], owner: str) -> None:
    """Refuse a view that is not orthogonal on images of ``shape`` (C, H, W).

    For a linear Q, |Qx|^2 - |x|^2 = x^T (Q^T Q - I) x is a polynomial in x; if it vanishes at a
    random x it vanishes everywhere, with probability one. In float64 a single misplaced pixel of
    a 256x256 image stands a million times above rounding.

    Raises:
        TypeError: no Transform.
        ValueError: a size it does not accept, or a map that is not linear and orthogonal.
    """
    if not isinstance(view, Transform):
        raise TypeError(
            f"{owner}: {view!r} is no Transform; give a name such as 'flip' or a Transform object"
        )
    _, height, width = shape
    if not view.accepts(height, width):
        raise ValueError(f"{owner}: {view!r} accepts {view.sizes}, not {height}x{width}")
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    try:
        seen = view(x)
        trouble = _not_linear(view, x, y) or _not_orthogonal(view, x, seen)
    except Exception as error:
        raise ValueError(
            f"{owner}: {view!r} failed on a {height}x{width} image: {error}"
        ) from error
    if trouble:
        raise ValueError(
            f"{owner}: {view!r} is not orthogonal ({trouble}); the model would see noise it was "
            "not trained on, so use a permutation, rotation or sign change of pixels"
        )


def check_parts(
    parts: Sequence[Callable[[Tensor], Tensor]], shape: tuple[int, int, int], owner: str
) -> None:
    """Refuse filters that do not sum to the identity on images of ``shape`` (C, H, W)."""
    x, y = torch.randn(
        (2, 1, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    gap = (sum((part(x) for part in parts), torch.zeros_like(x)) - x).abs().max().item()
    if not gap < 1e-8:
        raise ValueError(
            f"{owner}: the parts do not sum to the identity (off by {gap:.2g}); make the last "
            "part the rest, x minus the others"
        )
    for part in parts:
        if trouble := _not_linear(part, x, y):
            raise ValueError(f"{owner}: {part!r} is not linear ({trouble}); use a linear filter")


def _not_linear(view: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> str:
    gap = (view(2 * x - 3 * y) - (2 * view(x) - 3 * view(y))).abs().max().item()
    return "" if gap < 1e-8 else f"f(2x - 3y) is not 2 f(x) - 3 f(y), off by {gap:.2g}"


def _not_orthogonal(view: Transform, x: Tensor, seen: Tensor) -> str:
    if seen.shape != x.shape:
        return f"it changes the shape {tuple(x.shape)} to {tuple(seen.shape)}"
    stretch = (seen.norm() / x.norm() - 1).abs().item()
    if not stretch < 1e-10:
        return f"it changes lengths by {stretch:.2g}"
    gap = (view.inverse(seen) - x).abs().max().item()
    return "" if gap < 1e-8 else f"inverse(f(x)) is not x, off by {gap:.2g}"
