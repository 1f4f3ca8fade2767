"""Perturbed-attention guidance: guidance away from a model that does not look around."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from composer import Stack, hookimpl
from composer_plugins.guidance.cfg import Scale
from composer_plugins.guidance.perturbed import (
    AwayFromPerturbed,
    Layers,
    here,
    hooked,
    layers_of,
    may_attend,
    require_layers,
    self_attentions,
)


@dataclass(frozen=True, eq=False)
class PAG(AwayFromPerturbed):
    """Perturbed-attention guidance: guided + scale * (plain - perturbed).

    In the perturbed model each token of the named layers attends to itself alone: the map of
    self-attention is the identity. Such a model keeps the looks of things and loses their
    structure, so guidance away from it improves structure. It needs no unconditional model.

    The coefficients sum to one, so the law of composition holds, and with anagrams it commutes. It
    needs one row more than ``guidance``. The perturbed rows are a call of their own, so that a step
    makes two calls.

    Ahn et al. 2024, "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance",
    arXiv 2403.17377.

    Args:
        scale: the paper's is 3; 0 is the guidance alone. Or one a seed, as for CFG.
        guidance: a plugin such as CFG(5.0), whose branches are not perturbed; None for none.
        layers: layers of the network by name, such as "mid_block" or "transformer_blocks.9"; all
            self-attention in them is perturbed.
        interval: noise levels within which to perturb, as for CFG.
    """

    scale: Scale
    guidance: Any = None
    layers: Layers = "mid_block"
    interval: Sequence[float] = (0.0, 1.0)

    @property
    def perturbation(self) -> IdentityAttention:
        return IdentityAttention(self.names)

    @hookimpl
    def check(self, stack: Stack) -> None:
        if not may_attend(require_layers(stack.backend, self.names, "PAG")):
            raise without_attention(self.names)


@dataclass(frozen=True)
class IdentityAttention:
    """A network in whose layers each token attends to itself alone.

    Attention by ``scaled_dot_product_attention`` of as many queries as keys returns its values.

    Args:
        layers: names of layers.
    """

    layers: tuple[str, ...]

    @contextmanager
    def applied(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        layers, mode, mine = layers_of(networks, self.layers, "PAG"), _Identity(), here()

        def enter(*_: Any) -> None:
            if mine():
                mode.__enter__()  # type: ignore[no-untyped-call]

        def leave(*_: Any) -> None:
            if mine():
                mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

        # A layer without attention of diffusers may have some of its own.
        places = self_attentions(layers) or layers
        before = [partial(place.register_forward_pre_hook, enter) for place in places]
        after = [partial(place.register_forward_hook, leave, always_call=True) for place in places]
        with hooked([*before, *after]):
            yield
        if not mode.acted:
            raise without_attention(self.layers)


def without_attention(layers: Iterable[str]) -> ValueError:
    """The error for layers that do not attend."""
    return ValueError(
        "PAG: layers must have self-attention by torch's scaled_dot_product_attention, got none in "
        f"{', '.join(layers)}. Name other layers, or use SLG."
    )


class _Identity(TorchFunctionMode):
    """Attention whose map is the identity matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.acted = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            query, value = named["query"], named["value"]
            if query.shape[-2] == value.shape[-2]:
                self.acted = True
                return value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        return func(*args, **(kwargs or {}))
