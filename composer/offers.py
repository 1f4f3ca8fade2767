"""What a package offers: names for plugins, transforms, solvers and backends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from composer.protocols import Backend, Solver
from composer.transforms import Transform

Example = Callable[[], object]


@dataclass(frozen=True)
class Offer:
    """One registered name."""

    kind: str
    name: str
    factory: Callable[..., Any]
    package: str
    example: Example | None = None

    @property
    def description(self) -> str:
        """The first line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").split("\n")[0]


class Register:
    """What ``register_plugins`` is handed: one method a kind of thing.

    ``example`` makes one for ``composer check`` to examine, where the factory needs arguments:
    ``register.plugin("guidance", Guidance, example=lambda: Guidance(3.0))``.
    """

    def __init__(self, package: str) -> None:
        self.package = package
        self.offers: list[Offer] = []

    def plugin(
        self, name: str, factory: Callable[..., object], *, example: Example | None = None
    ) -> None:
        """Offer a plugin class; its dataclass fields are its options in recipes."""
        self._offer("plugin", name, factory, example)

    def transform(
        self, name: str, factory: Callable[..., Transform], *, example: Example | None = None
    ) -> None:
        """Offer a Transform class; its name alone suffices where all parameters have defaults."""
        self._offer("transform", name, factory, example)

    def decomposition(
        self, name: str, factory: Callable[..., object], *, example: Example | None = None
    ) -> None:
        """Offer a class whose ``parts`` are linear maps of images that sum to the identity."""
        self._offer("decomposition", name, factory, example)

    def score(self, name: str, factory: Callable[..., Callable[[Tensor], Tensor]]) -> None:
        """Offer a class of functions (B, C, H, W) -> (B,), higher is better."""
        self._offer("score", name, factory)

    def solver(self, name: str, factory: Callable[..., Solver]) -> None:
        """Offer a solver class."""
        self._offer("solver", name, factory)

    def backend(self, name: str, factory: Callable[..., Backend]) -> None:
        """Offer a function that loads a backend; its parameters are ``load_backend``'s options."""
        self._offer("backend", name, factory)

    def _offer(
        self, kind: str, name: str, factory: Callable[..., Any], example: Example | None = None
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"{self.package} offers a {kind} by the name {name!r}; give a word")
        if not callable(factory):
            raise TypeError(
                f"{self.package} offers the {kind} {name!r} as {factory!r:.80}; give the class, or "
                "a function that makes one"
            )
        if example is not None and (not callable(example) or isinstance(example, type)):
            raise TypeError(
                f"{self.package} offers the {kind} {name!r} with the example {example!r}; give a "
                "function without arguments that makes one"
            )
        if any((o.kind, o.name) == (kind, name) for o in self.offers):
            raise ValueError(f"{self.package} offers the {kind} {name!r} twice")
        self.offers.append(Offer(kind, name, factory, self.package, example))
