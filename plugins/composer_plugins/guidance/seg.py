"""Smoothed energy guidance: guidance away from a model with blurred attention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from composer import Stack, hookimpl
from composer.arguments import positive
from composer.authoring import to_device
from composer_plugins.guidance.cfg import Scale
from composer_plugins.guidance.perturbed import (
    AwayFromPerturbed,
    Layers,
    here,
    hooked,
    layers_of,
    require_layers,
    self_attentions,
)


@dataclass(frozen=True, eq=False)
class SEG(AwayFromPerturbed):
    """Smoothed energy guidance: guided + scale * (plain - perturbed).

    In the perturbed model the queries of self-attention in the named layers are blurred across the
    image by a Gaussian, which flattens the energy whose gradient attention is. ``sigma`` sets how
    far: from 0, no perturbation, to infinity, where all queries are their mean. It harms less than
    PAG at equal improvement of structure, and needs no unconditional model either.

    The coefficients sum to one, so the law of composition holds, and with anagrams it commutes. It
    needs one row more than ``guidance``. The perturbed rows are a call of their own, so that a step
    makes two calls.

    Hong 2024, "Smoothed Energy Guidance: Guiding Diffusion Models with Reduced Energy Curvature of
    Attention", arXiv 2408.00760.

    Args:
        scale: the paper's is 3; 0 is the guidance alone. Or one a seed, as for CFG.
        guidance: a plugin such as CFG(5.0), whose branches are not perturbed; None for none.
        layers: layers of the network by name, such as "mid_block"; all self-attention in them is
            perturbed.
        sigma: standard deviation of the blur, in tokens; None for infinity.
        interval: noise levels within which to perturb, as for CFG.
    """

    scale: Scale
    guidance: Any = None
    layers: Layers = "mid_block"
    sigma: float | None = None
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma is not None:
            positive(self.sigma, "SEG: sigma")

    @property
    def perturbation(self) -> BlurredQueries:
        sigma = math.inf if self.sigma is None else self.sigma
        return BlurredQueries(self.names, sigma)

    @hookimpl
    def check(self, stack: Stack) -> None:
        if not queries_of(require_layers(stack.backend, self.names, "SEG")):
            raise ValueError(
                f"SEG: the layers {', '.join(self.names)} must have self-attention with a "
                "projection to_q, got none. Name other layers, or use PAG or SLG."
            )


@dataclass(frozen=True)
class BlurredQueries:
    """A network in whose layers the queries of self-attention are blurred across the image.

    Args:
        layers: names of layers.
        sigma: of the blur, in tokens; may be infinite.
    """

    layers: tuple[str, ...]
    sigma: float

    @contextmanager
    def applied(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        mine, sizes = here(), [(1, 1)]

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = (*args, *kwargs.values())
            images = [x for x in given if isinstance(x, Tensor) and x.ndim == 4]
            if mine() and images:  # tokens that are packed before are of a square image
                sizes.append((images[0].shape[-2], images[0].shape[-1]))

        def blur(_: nn.Module, args: tuple[Any, ...], queries: Tensor) -> Tensor:
            return blurred(queries, sizes[-1], self.sigma) if mine() else queries

        read = [
            partial(network.register_forward_pre_hook, note, with_kwargs=True)
            for network in networks.values()
        ]
        queries = queries_of(layers_of(networks, self.layers, "SEG"))
        with hooked([*read, *(partial(q.register_forward_hook, blur) for q in queries)]):
            yield


def queries_of(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """The projections to queries in layers."""
    found = (getattr(attention, "to_q", None) for attention in self_attentions(layers))
    return [query for query in found if query is not None]


def blurred(queries: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Queries (N, L, D) of an image's L = h w tokens, blurred across the image.

    Args:
        size: (H, W), whose proportions the image has.
        sigma: in tokens.
    """
    tokens = queries.shape[1]
    height = round(math.sqrt(tokens * size[0] / size[1]))
    width = tokens // max(1, height)
    distorted = abs(height * size[1] - width * size[0]) >= max(size)  # by more than rounding
    if height * width != tokens or distorted:
        raise ValueError(
            f"SEG: the tokens of a layer must be an image of the proportions {size[0]}x{size[1]}, "
            f"got {tokens}. Name layers whose tokens are those of the image alone."
        )
    down, across = (
        to_device(gaussian(side, sigma).to(queries.dtype), queries.device)
        for side in (height, width)
    )
    grid = queries.unflatten(1, (height, width))
    return torch.einsum("hi,nijd,wj->nhwd", down, grid, across).flatten(1, 2)


def gaussian(side: int, sigma: float) -> Tensor:
    """The matrix (side, side) of a blur with mirrored borders; of an infinite one, the mean."""
    if math.isinf(sigma):
        return torch.full((side, side), 1 / side)
    reach = min(math.ceil(6 * sigma), side) // 2  # as in the paper's code
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    places = (torch.arange(side)[:, None] + torch.arange(-reach, reach + 1)).abs()
    places = torch.where(places < side, places, 2 * (side - 1) - places)
    rows = torch.arange(side)[:, None].expand_as(places)
    matrix = torch.zeros(side, side)
    return matrix.index_put_((rows, places), (taps / taps.sum()).expand_as(places), accumulate=True)
