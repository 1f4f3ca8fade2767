"""Guidance away from a perturbed model: what PAG, SEG and skip-layer guidance have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from composer import Backend, Estimate, Request, Stack, hookimpl
from composer.arguments import finite_each, interval, sequence, within
from composer.authoring import combine, networks_of
from composer.errors import shown
from composer.predictions import Prediction
from composer_plugins.guidance.around import AroundGuidance
from composer_plugins.guidance.cfg import Scale, require_guidance

Layers = str | Sequence[str]
"""The name of a layer, such as "mid_block" or "transformer_blocks.7", or several."""
LISTED = 12
"""Layers that a message names."""
WITHOUT = "torch", "diffusers", "composer_plugins"
"""Packages whose layers attend only where :func:`may_attend` finds it."""


class AwayFromPerturbed(AroundGuidance):
    """guided + scale * (plain - perturbed), within an interval of noise levels.

    ``guided`` is the answer under ``guidance``, or plain if that is None. A scale of 0 needs
    the guided rows alone. A plugin is a dataclass with these fields and a ``perturbation``.
    """

    one_a_seed = ("scale",)

    scale: Scale
    layers: Layers
    interval: Sequence[float]

    @property
    def perturbation(self) -> Any:
        """The perturbation of the layers."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers, at least one."""
        owner, layers = type(self).__name__, self.layers
        names = (
            (layers,) if isinstance(layers, str) else tuple(sequence(layers, f"{owner}: layers"))
        )
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"{owner}: layers must be names of layers, at least one, got {shown(layers)}."
            )
        return names

    def __post_init__(self) -> None:
        owner = type(self).__name__
        finite_each(self.scale, f"{owner}: scale")
        interval(self.interval, f"{owner}: interval")
        if self.guidance is not None:
            require_guidance(self.guidance, owner)
        _ = self.names  # raises an error unless they are names

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_layers(stack.backend, self.names, type(self).__name__)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        scale = request.each(self.scale)
        guided = request if self.guidance is None else request.fill(self.guidance)
        nothing = not isinstance(scale, Tensor) and scale == 0
        if nothing or not within(request.noise_level, self.interval):
            return (yield [guided])[0]
        made, plain, worse = yield [guided, request, request.replace(model=self.perturbation)]
        shift = as_kind(plain, made.kind) - as_kind(worse, made.kind)
        return combine((1, scale), (made, shift), variance=made)


def as_kind(estimate: Estimate, kind: Prediction) -> Estimate:
    """The same estimate as a prediction of another kind."""
    if estimate.kind == kind:
        return estimate
    place = estimate.schedule.at(estimate.t)
    return estimate.replace(prediction=kind.target(estimate.x0, estimate.noise, *place), kind=kind)


def layers_of(
    networks: Mapping[str, nn.Module], names: Iterable[str], owner: str
) -> list[nn.Module]:
    """The modules of these names in a backend's networks.

    Raises:
        ValueError: a name is of none; the message lists layers with self-attention.
    """
    found = []
    for name in names:
        places = [dict(network.named_modules()) for network in networks.values()]
        modules = [named[name] for named in places if name in named]
        if not modules:
            known = [
                n for named in places for n, layer in named.items() if is_self_attention(layer)
            ]
            listed = ", ".join(known[:LISTED]) + (", ..." if len(known) > LISTED else "")
            raise ValueError(
                f"{owner}: layers must be names of the network's, got {name!r}. "
                + (f"With self-attention: {listed}." if known else "It has no self-attention.")
            )
        found += modules
    return found


def require_layers(backend: Backend, names: Iterable[str], owner: str) -> list[nn.Module]:
    """:func:`layers_of` a backend.

    Raises:
        ValueError: it declares no networks, or a name is of no layer.
    """
    networks = networks_of(backend)
    if not networks:
        raise ValueError(
            f"{owner}: {type(backend).__name__} declares no networks, so none can be perturbed. "
            "Give it an attribute networks, {name: nn.Module}."
        )
    return layers_of(networks, names, owner)


def is_self_attention(module: nn.Module) -> bool:
    """Whether a module is an attention layer, as diffusers writes them, of image tokens alone."""
    attends = hasattr(module, "processor") and hasattr(module, "heads")
    return attends and not getattr(module, "is_cross_attention", False)


def may_attend(layers: Iterable[nn.Module]) -> bool:
    """Whether layers have self-attention as far as their types tell. Of layers that someone wrote
    themselves only a forward pass would tell, so they may."""
    modules = [module for layer in layers for module in layer.modules()]
    return any(
        is_self_attention(module)
        or isinstance(module, nn.MultiheadAttention)
        or type(module).__module__.partition(".")[0] not in WITHOUT
        for module in modules
    )


def self_attentions(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """The self-attention in layers, each once."""
    found = (module for layer in layers for module in layer.modules())
    return [*dict.fromkeys(module for module in found if is_self_attention(module))]


@contextmanager
def hooked(register: Iterable[Callable[[], RemovableHandle]]) -> Iterator[None]:
    """Register hooks of modules within a block."""
    with ExitStack() as handles:
        for hook in register:
            handles.callback(hook().remove)
        yield


def here() -> Callable[[], bool]:
    """A function that says whether it runs in the thread that is running now.

    Another thread may be using the same network, unperturbed.
    """
    owner = threading.get_ident()
    return lambda: threading.get_ident() == owner
