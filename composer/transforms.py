"""The base class of views: linear, orthogonal maps of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from composer.arguments import sequence
from composer.errors import shown

ANY_SIZE = "any size"


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
        """Carry a per-pixel variance back. The default is correct for permutations of pixels;
        override it where a sign flips: Var(-x) = Var(x)."""
        return self.inverse(variance)

    def view_variance(self, variance: Tensor) -> Tensor:
        """Carry a per-pixel variance to the view; the counterpart of :meth:`inverse_variance`."""
        return self(variance)

    def accepts(self, height: int, width: int) -> bool:
        """Whether images of this size can be viewed; :attr:`sizes` says which can."""
        return height > 0 and width > 0

    @property
    def sizes(self) -> str:
        """The accepted sizes in words, for error messages."""
        return ANY_SIZE

    def resized(self, height: int, width: int) -> Transform:
        """The same view for images of this size: itself, unless it holds data of a fixed size."""
        return self

    def frame(self, x: Tensor, u: float) -> Tensor:
        """A frame between x (u = 0) and its view (u = 1), for animations.

        The default is a cross-fade. The frame has the shape and dtype of x (..., C, H, W). It is
        exact at both ends, and need not be orthogonal in between.
        """
        return torch.lerp(x, self(x), u)

    @property
    def inverse_transform(self) -> Transform:
        """Q^-1 as a transform of its own."""
        return Inverse(self)

    def __matmul__(self, first: Transform) -> Transform:
        """(self @ first)(x) = self(first(x)), as for matrices."""
        if not isinstance(first, Transform):
            return NotImplemented
        return Composed((self, first))


@dataclass(frozen=True)
class Composed(Transform):
    """A product of transforms, Q_1 Q_2 ... Q_n x, the last applied first.

    An empty product is the identity.

    Args:
        transforms: Q_1, ..., Q_n. Made by ``q1 @ q2``.
    """

    transforms: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        given = sequence(self.transforms, "Composed: transforms")
        if strangers := [t for t in given if not isinstance(t, Transform)]:
            raise TypeError(f"Composed: transforms must be Transforms, got {strangers[0]!r}.")
        # Nested products are flattened, so that a @ (b @ c) == (a @ b) @ c.
        flat: list[Transform] = []
        for transform in self.transforms:
            flat += transform.transforms if isinstance(transform, Composed) else [transform]
        object.__setattr__(self, "transforms", tuple(flat))

    def __call__(self, x: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            x = transform(x)
        return x

    def inverse(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform.inverse(x)
        return x

    def inverse_variance(self, variance: Tensor) -> Tensor:
        for transform in self.transforms:
            variance = transform.inverse_variance(variance)
        return variance

    def view_variance(self, variance: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            variance = transform.view_variance(variance)
        return variance

    def accepts(self, height: int, width: int) -> bool:
        return all(t.accepts(height, width) for t in self.transforms)

    @property
    def sizes(self) -> str:
        said = {t.sizes for t in self.transforms} - {ANY_SIZE}
        return " and ".join(sorted(said)) or ANY_SIZE

    def resized(self, height: int, width: int) -> Transform:
        return Composed(tuple(t.resized(height, width) for t in self.transforms))

    def frame(self, x: Tensor, u: float) -> Tensor:
        """Move through the factors in turn, each for an equal part of the way."""
        place = u * len(self.transforms)
        for done, transform in enumerate(reversed(self.transforms)):
            x = transform.frame(x, min(max(place - done, 0.0), 1.0))
        return x


@dataclass(frozen=True)
class Inverse(Transform):
    """Q^-1 of a transform Q. Made by ``q.inverse_transform``.

    Args:
        of: the transform Q.
    """

    of: Transform = Composed()

    def __post_init__(self) -> None:
        if not isinstance(self.of, Transform):
            raise TypeError(f"Inverse: of must be a Transform, got {shown(self.of)}.")

    def __call__(self, x: Tensor) -> Tensor:
        return self.of.inverse(x)

    def inverse(self, x: Tensor) -> Tensor:
        return self.of(x)

    def inverse_variance(self, variance: Tensor) -> Tensor:
        return self.of.view_variance(variance)

    def view_variance(self, variance: Tensor) -> Tensor:
        return self.of.inverse_variance(variance)

    def accepts(self, height: int, width: int) -> bool:
        return self.of.accepts(height, width)

    @property
    def sizes(self) -> str:
        return self.of.sizes

    def resized(self, height: int, width: int) -> Transform:
        return self.of.resized(height, width).inverse_transform

    @property
    def inverse_transform(self) -> Transform:
        return self.of

    def frame(self, x: Tensor, u: float) -> Tensor:
        return self.of.frame(self.of.inverse(x), 1 - u)
