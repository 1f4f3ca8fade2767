"""Skip-layer guidance: guidance away from a model with layers left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from composer_plugins.guidance.cfg import Scale
from composer_plugins.guidance.perturbed import (
    AwayFromPerturbed,
    Layers,
    here,
    hooked,
    layers_of,
)


@dataclass(frozen=True, eq=False)
class SLG(AwayFromPerturbed):
    """Skip-layer guidance: guided + scale * (plain - perturbed).

    The perturbed model is the model without the named layers: each returns what it was given. That
    is a worse model of any network, with attention or without; Stable Diffusion 3.5 makes better
    hands and faces by skipping layers 7 to 9.

    The coefficients sum to one, so the law of composition holds, and with anagrams it commutes. It
    needs one row more than ``guidance``. The perturbed rows are a call of their own, so that a step
    makes two calls.

    Hyung et al. 2024, "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling",
    arXiv 2411.18664.

    Args:
        scale: 2.8 for Stable Diffusion 3.5; 0 is the guidance alone. Or one a seed, as for CFG.
        layers: layers of the network by name, such as "transformer_blocks.7"; each must return as
            many values as it takes.
        guidance: a plugin such as CFG(5.0), whose branches are not perturbed; None for none.
        interval: noise levels within which to perturb, as for CFG.
    """

    scale: Scale
    layers: Layers
    guidance: Any = None
    interval: Sequence[float] = (0.0, 1.0)

    @property
    def perturbation(self) -> SkippedLayers:
        return SkippedLayers(self.names)


@dataclass(frozen=True)
class SkippedLayers:
    """A network whose layers of these names return what they are given.

    Args:
        layers: names of layers.
    """

    layers: tuple[str, ...]

    @contextmanager
    def applied(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        mine = here()

        def skip(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return unchanged(output, (*args, *kwargs.values())) if mine() else output

        layers = layers_of(networks, self.layers, "SLG")
        with hooked(partial(x.register_forward_hook, skip, with_kwargs=True) for x in layers):
            yield


def unchanged(output: Any, given: Sequence[Any]) -> Any:
    """What a layer would return if it changed nothing: of what it was given, the tensors in the
    shapes of its output.

    Args:
        output: a tensor, or a tuple of tensors and None.
        given: its arguments.
    """
    if output is None:
        return None
    if isinstance(output, tuple):
        return tuple(unchanged(part, given) for part in output)
    alike = [x for x in given if isinstance(x, Tensor) and x.shape == output.shape]
    if len({id(x) for x in alike}) != 1:
        raise ValueError(
            f"SLG: a layer that is skipped must be given one tensor of the shape that it returns, "
            f"{tuple(output.shape)}, got {len(alike)}. Name other layers."
        )
    return alike[0]
