"""Views that move pixels: the base class of permutations, and permutations of the user."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from composer.arguments import integer
from composer.errors import shown
from composer_plugins.transforms.motion import Moving, scattered


class PixelPermutation(Moving):
    """A permutation of the H*W pixels, the same for every image and channel.

    Subclasses are frozen dataclasses that define :meth:`order`, which is called once per size.
    """

    @abstractmethod
    def order(self, height: int, width: int) -> Tensor:
        """(H*W,) int64: pixel i of the view, counted by rows, is pixel order[i] of the image."""

    def __call__(self, x: Tensor) -> Tensor:
        return _gathered(x, _orders(self, *x.shape[-2:], x.device)[0])

    def inverse(self, x: Tensor) -> Tensor:
        return _gathered(x, _orders(self, *x.shape[-2:], x.device)[1])

    def between(self, x: Tensor, u: float) -> Tensor:
        """Every pixel moves along a straight line."""
        height, width = x.shape[-2:]
        return scattered(x, _orders(self, height, width, torch.device("cpu"))[0], u)


@dataclass(frozen=True)
class Permutation(PixelPermutation):
    """Your own permutation of pixels.

    Args:
        indices: pixel i of the view, counted by rows, is pixel indices[i] of the image; a list, a
            tensor or an array of all the numbers from 0 to H*W - 1.
    """

    indices: Sequence[int]

    def __post_init__(self) -> None:
        listed = self.indices.tolist() if hasattr(self.indices, "tolist") else self.indices
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise TypeError(
                f"Permutation: indices must be a list of integers, got {shown(listed)}."
            )
        # A tuple, so that the view can be hashed and written into a recipe.
        indices = tuple(integer(i, "Permutation: an index", least=0) for i in listed)
        object.__setattr__(self, "indices", indices)
        if sorted(indices) != list(range(len(indices))):
            raise ValueError(
                f"Permutation: indices must hold each number from 0 to {len(indices) - 1} once."
            )

    def __repr__(self) -> str:
        return f"Permutation of {len(self.indices)} pixels"

    def order(self, height: int, width: int) -> Tensor:
        return torch.tensor(self.indices)

    def resized(self, height: int, width: int) -> Permutation:
        """The same view of larger images of these proportions: square blocks of pixels move."""
        side = math.isqrt(height * width // len(self.indices))
        if height * width != len(self.indices) * side**2 or height % side or width % side:
            return self  # where it is not accepted
        across = width // side
        blocks = torch.tensor(self.indices).reshape(-1, across)
        blocks = blocks.repeat_interleave(side, 0).repeat_interleave(side, 1)
        rows = blocks // across * side + (torch.arange(height) % side)[:, None]
        columns = blocks % across * side + torch.arange(width) % side
        return Permutation((rows * width + columns).flatten().tolist())

    def accepts(self, height: int, width: int) -> bool:
        return height * width == len(self.indices)

    @property
    def sizes(self) -> str:
        return f"images of {len(self.indices)} pixels"


def divisor(side: int, most: int) -> int:
    """The largest number up to ``most`` that divides a side into equal parts."""
    return max(parts for parts in range(1, min(side, most) + 1) if side % parts == 0)


def checked_seed(seed: int, name: str) -> int:
    """A whole number below 2**32, all of whose bits a generator uses."""
    if (checked := integer(seed, name, least=0)) >= 2**32:
        raise ValueError(f"{name} must be below 2**32, got {seed}.")
    return checked


def seeded(seed: int) -> torch.Generator:
    """A generator for one transform, so that other random numbers stay as they are."""
    return torch.Generator().manual_seed(seed)


def _gathered(x: Tensor, order: Tensor) -> Tensor:
    # gather is ten times as fast as index_select on a CPU.
    pixels = x.flatten(-2)
    return pixels.gather(-1, order.expand_as(pixels)).reshape(x.shape)


# Bounded: an order and its inverse take 16 MB at 1024 x 1024.
@functools.lru_cache(maxsize=16)
def _orders(
    view: PixelPermutation, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A view's order at a size, and the inverse order."""
    if not view.accepts(height, width):
        raise ValueError(f"{view!r} accepts {view.sizes}, got {height}x{width}.")
    # Outside of inference mode, so that the cached tensors serve gradients too.
    with torch.inference_mode(False):
        order = view.order(height, width)
        inverse = torch.argsort(order)
        pixels = height * width
        if order.shape != (pixels,) or not torch.equal(order[inverse], torch.arange(pixels)):
            raise ValueError(
                f"{view!r}: order({height}, {width}) must be a permutation of {pixels} pixels."
            )
        return order.to(device), inverse.to(device)
