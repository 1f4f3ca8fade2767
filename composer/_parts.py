"""Linear parts of an image that sum to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from torch import Tensor

from composer.arguments import lacking, sequence
from composer.errors import shown

Part = Callable[[Tensor], Tensor]
"""A linear map of images (B, C, H, W), each by itself."""


class Decomposition(Protocol):
    """Anything with ``parts``: linear maps (B, C, H, W) -> the same shape that sum to the
    identity."""

    @property
    def parts(self) -> tuple[Part, ...]: ...


def parts_of(decomposition: Decomposition | Sequence[Part], owner: str) -> tuple[Part, ...]:
    """The parts of a decomposition, or the functions given in its place.

    Raises:
        TypeError: there are no parts; the message names ``owner``.
    """
    if not lacking(decomposition, Decomposition):
        return cast(Decomposition, decomposition).parts
    parts = sequence(decomposition, f"{owner}: parts, or the list of functions in their place,")
    if not all(callable(part) for part in parts):
        raise TypeError(f"{owner}: parts must be functions of an image, got {shown(parts)}.")
    return tuple(parts)
