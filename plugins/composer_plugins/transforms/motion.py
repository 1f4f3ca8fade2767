"""Pictures between an image and its view, in which pieces turn and move; not orthogonal maps.

Places are (row, column) in pixels, rows downward. A linear map of the plane is given by its inverse
``back`` (2, 2), which maps an output pixel to the place it is read from; bilinear between pixels.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from composer import Transform

Place = tuple[float, float]


class Moving(Transform):
    """A transform that draws the pictures between an image and its view itself."""

    def frame(self, x: Tensor, u: float) -> Tensor:
        if u <= 0:
            return x
        return self(x) if u >= 1 else self.between(wide(x), u).to(x.dtype)

    @abstractmethod
    def between(self, x: Tensor, u: float) -> Tensor:
        """The picture at 0 < u < 1; x (..., C, H, W) in float32 or float64."""


def wide(x: Tensor) -> Tensor:
    """x in float32 for arithmetic, or in float64 if it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def ground(x: Tensor) -> Tensor:
    """The background where no piece lies: each channel's median along the image's border.

    A digit keeps its black; a photograph gets one of its own colours. A new tensor of x's shape.
    """
    border = [x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]]
    colour = torch.cat(border, -1).median(-1).values
    return colour[..., None, None].expand_as(x).clone()


def turn(degrees: float, zoom: float = 1.0) -> Tensor:
    """``back`` of a clockwise turn and an enlargement."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64) / zoom


def centre(x: Tensor) -> Place:
    """The middle of an image (..., H, W)."""
    return (x.shape[-2] - 1) / 2, (x.shape[-1] - 1) / 2


def moved(x: Tensor, back: Tensor) -> Tensor:
    """The whole image, mapped about its middle."""
    canvas = ground(x)
    whole = torch.ones(x.shape[-2:], dtype=torch.bool)
    paste(canvas, x, whole, centre(x), centre(x), back)
    return canvas


def paste(
    canvas: Tensor, x: Tensor, mask: Tensor, pivot: Place, place: Place, back: Tensor
) -> None:
    """Draw one piece of x into the canvas, over what is there.

    Args:
        canvas: (..., C, H, W), written to.
        x: the image that the piece is cut from, of the canvas's shape and dtype.
        mask: (H, W) bool, the piece.
        pivot: the piece's point that goes to ``place`` and about which ``back`` maps.
        back: inverse of a map that enlarges nothing.
    """
    height, width = mask.shape
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    # The piece reaches no further from the place than its corner is from its pivot.
    reach = 1 + math.hypot(
        max(abs(top - pivot[0]), abs(bottom - pivot[0])),
        max(abs(left - pivot[1]), abs(right - pivot[1])),
    )
    window = _span(place[0], reach, height), _span(place[1], reach, width)
    offsets = torch.stack(
        torch.meshgrid(
            *(torch.arange(s.start, s.stop) - at for s, at in zip(window, place, strict=True)),
            indexing="ij",
        ),
        -1,
    )
    source = offsets.double() @ back.T + torch.tensor(pivot) - torch.tensor([top, left])
    size = torch.tensor([bottom - top, right - left])
    # grid_sample's coordinates: -1 to 1 from edge to edge, column first. Far away is far enough.
    grid = ((2 * source + 1) / size - 1).flip(-1).clamp(-10, 10).to(x)
    cut = mask[top:bottom, left:right].to(x)
    piece = x[..., top:bottom, left:right] * cut
    layers = torch.cat([piece.reshape(-1, *cut.shape), cut[None]])
    seen = F.grid_sample(layers[None], grid[None], align_corners=False)[0]
    under = canvas[..., window[0], window[1]]
    under.mul_(1 - seen[-1]).add_(seen[:-1].reshape(under.shape))


def scattered(x: Tensor, order: Tensor, u: float) -> Tensor:
    """Move every pixel the fraction u of its straight way, in whole pixels.

    Pixels that share a displacement keep together, so that blocks travel as blocks.

    Args:
        order: (H*W,), pixel i of the view comes from pixel order[i].
    """
    width = x.shape[-1]
    target = torch.arange(len(order))
    down, along = target // width - order // width, target % width - order % width
    shift = torch.floor(u * down + 0.5).long() * width + torch.floor(u * along + 0.5).long()
    # Where several meet, the one that moves furthest down, then right, is visible; pixels of one
    # displacement never meet.
    last = torch.argsort(down * 2 * width + along, stable=True)
    rank = torch.empty_like(last).scatter_(0, last, target)
    top = torch.full_like(order, -1).scatter_reduce(0, order + shift, rank, "amax")
    seen = order[last[top.clamp(min=0)]]
    covered = (top >= 0).unflatten(0, x.shape[-2:])
    pixels = x.flatten(-2)[..., seen.to(x.device)].unflatten(-1, x.shape[-2:])
    return torch.where(covered.to(x.device), pixels, ground(x))


def _span(place: float, reach: float, side: int) -> slice:
    """The pixels within reach of a place."""
    return slice(
        max(0, min(side, math.floor(place - reach))), max(0, min(side, math.ceil(place + reach)))
    )
