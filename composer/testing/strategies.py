"""Hypothesis strategies for images and transforms, which shrink to the simplest examples.

Mark tests that use them with ``@settings(deadline=None)``: the first call of a transform may build
a permutation.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from composer.arguments import integer
from composer.testing.probe import DTYPES, noise, refusal
from composer.testing.registered import registered_transforms
from composer.transforms import Transform

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "composer.testing.strategies needs hypothesis. Install diffusion-composer[testing]."
    ) from error

T = TypeVar("T")


@st.composite
def image_shapes(
    draw: st.DrawFn,
    max_side: int = 24,
    max_lead: int = 2,
    square: bool = False,
) -> tuple[int, ...]:
    """(..., C, H, W), of 1 to 3 channels and up to ``max_lead`` leading dimensions.

    Shrinks to one small image of one channel.
    """
    most = integer(max_lead, "max_lead", least=0)
    lead = draw(st.lists(st.integers(1, 3), max_size=most))
    height = draw(st.integers(1, integer(max_side, "max_side", least=1)))
    width = height if square else draw(st.integers(1, max_side))
    return (*lead, draw(st.integers(1, 3)), height, width)


def dtypes() -> st.SearchStrategy[torch.dtype]:
    """float64, float32, float16 and bfloat16; shrinks to float64."""
    return st.sampled_from(DTYPES[::-1])


@st.composite
def images(
    draw: st.DrawFn,
    shapes: st.SearchStrategy[tuple[int, ...]] | None = None,
    dtypes: st.SearchStrategy[torch.dtype] | None = None,
) -> Tensor:
    """Images: whole numbers in order, one white pixel, or N(0, 1) noise; shrinks to numbers.

    Args:
        shapes: None for :func:`image_shapes`.
        dtypes: None for float32.
    """
    shape = draw(image_shapes() if shapes is None else shapes)
    dtype = torch.float32 if dtypes is None else draw(dtypes)
    count = torch.Size(shape).numel()
    kind = draw(st.sampled_from(["numbers", "pixel", "noise"]))
    if kind == "noise":
        return noise(shape, seed=draw(st.integers(0, 2**31)), dtype=dtype)
    flat = torch.arange(count) % 256  # bfloat16 holds these exactly
    if kind == "pixel":
        flat = (torch.arange(count) == draw(st.integers(0, count - 1))).long()
    return flat.reshape(shape).to(dtype)


def transforms(
    height: int | None = None, width: int | None = None, channels: int = 3
) -> st.SearchStrategy[Transform]:
    """Registered transforms that need no arguments, their inverses and products.

    Shrinks to the identity.

    Args:
        height, width: return only transforms that accept this size; None for any.
        channels: the channels that they must accept, if a size is given.

    Raises:
        TypeError, ValueError: the size is wrong, or no registered transform accepts it.
    """
    by_name = registered_transforms()
    known = [by_name[name] for name in sorted(by_name, key=lambda n: (n != "identity", n))]
    if (height is None) != (width is None):
        raise ValueError(
            f"height and width must both be given, got {height!r} and {width!r}. Give both, or "
            "neither."
        )
    if height is not None and width is not None:
        size = integer(height, "height", least=1), integer(width, "width", least=1)
        shape = integer(channels, "channels", least=1), *size
        known = [t for t in known if t.accepts(*size) and not refusal(t, shape)]
        if not known:
            raise ValueError(f"No registered transform accepts images of the shape {shape}.")
    single = st.sampled_from(known)
    inverse = single.map(lambda t: t.inverse_transform)
    product = st.builds(lambda a, b: a @ b, single, single | inverse)
    return single | inverse | product
