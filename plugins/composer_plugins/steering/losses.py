"""Losses of the clean image that recipes can name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from composer.arguments import positive
from composer.authoring import resized_image, short_repr
from composer.errors import shown
from composer.images import ImageLike, hold_image, to_tensor


@dataclass(frozen=True, eq=False, repr=False)
class SquaredError:
    """|A x - y|^2 / (2 std^2), summed over the measurement: minus the log likelihood of a
    measurement y = A x + std * noise.

    Args:
        measurement: y, a tensor (C', H', W') in [-1, 1], or a picture of that size.
        operator: A, an object with a differentiable ``apply(x)``, linear or not, such as
            KnownPixels, BlockMean or Gray; None for the image itself.
        std: of the noise in y, above 0.
    """

    __repr__ = short_repr

    measurement: ImageLike
    operator: Any = None
    std: float = 0.1

    def __post_init__(self) -> None:
        held = hold_image(self.measurement, "SquaredError: measurement")
        object.__setattr__(self, "measurement", held)
        positive(self.std, "SquaredError: std")
        if self.operator is not None and not callable(getattr(self.operator, "apply", None)):
            raise TypeError(
                f"SquaredError: operator must have apply(x), got {shown(self.operator)}. Use for "
                "example KnownPixels(mask)."
            )

    @cached_property
    def _y(self) -> Tensor:
        """(1, C', H', W')."""
        return to_tensor(self.measurement)

    def resized(self, height: int, width: int) -> Self:
        """The same measurement of images of another size, by the operator's ``at_size``; itself if
        the operator has none."""
        if self.operator is None:
            y = resized_image(self.measurement, height, width, "SquaredError: measurement")
            return replace(self, measurement=y)
        at_size = getattr(self.operator, "at_size", None)
        if at_size is None:
            return self
        operator, y = at_size(self._y, height, width)
        return replace(self, measurement=y, operator=operator)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B,)."""
        seen = x if self.operator is None else self.operator.apply(x)
        y = self._y.to(seen)
        if y.shape[1:] != seen.shape[1:] or len(y) != 1:
            raise ValueError(
                f"SquaredError: measurement must be one of the shape {tuple(seen.shape[1:])}, got "
                f"{tuple(y.shape)}."
            )
        return (seen - y).square().sum((1, 2, 3)) / (2 * self.std**2)
