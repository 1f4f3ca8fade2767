"""Names of plugins, transforms, solvers and backends that a package offers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from composer.errors import nearest, printable, shown
from composer.foreign import Foreign
from composer.protocols import Backend, Solver
from composer.transforms import Transform

Example = Callable[[], object]


@dataclass(frozen=True)
class Offer:
    """One registered name.

    Attributes:
        factory: the class, or a function that makes one.
        example: makes one without arguments, for ``composer check``.
        safe_options: of a backend, see :meth:`Register.backend`.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    package: str
    example: Example | None = None
    safe_options: tuple[str, ...] | None = None

    @property
    def description(self) -> str:
        """The first line of the factory's docstring, or the error that reading it raised."""
        text: str | None = None
        with Foreign() as reading:  # a docstring may be a property
            text = inspect.getdoc(self.factory)
        return printable((text or reading.error or "").split("\n")[0])


class Register:
    """The argument of ``register_plugins``: one method per kind of offer.

    Where the factory needs arguments, ``example`` makes an object for ``composer check``:
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
        """Offer a Transform class; users may give its name if all parameters have defaults."""
        self._offer("transform", name, factory, example)

    def decomposition(
        self, name: str, factory: Callable[..., object], *, example: Example | None = None
    ) -> None:
        """Offer a class whose ``parts`` are linear maps of images that sum to the identity."""
        self._offer("decomposition", name, factory, example)

    def score(self, name: str, factory: Callable[..., Callable[[Tensor], Tensor]]) -> None:
        """Offer a class of functions (B, C, H, W) -> (B,), higher is better.

        An attribute ``image_shape`` states the (C, H, W) that it reads; pictures from files are
        brought to it. Without one, it gets them in colour, at their own size.
        """
        self._offer("score", name, factory)

    def loss(self, name: str, factory: Callable[..., Callable[[Tensor], Tensor]]) -> None:
        """Offer a class of differentiable functions (B, C, H, W) -> (B,), lower is better."""
        self._offer("loss", name, factory)

    def solver(self, name: str, factory: Callable[..., Solver]) -> None:
        """Offer a solver class."""
        self._offer("solver", name, factory)

    def backend(
        self,
        name: str,
        factory: Callable[..., Backend],
        *,
        safe_options: Iterable[str] | None = None,
    ) -> None:
        """Offer a function that loads a backend; its parameters are ``load_backend``'s options.

        Args:
            name, factory: the name, and the function.
            safe_options: the options that a stranger's recipe may set. With any values of these
                alone, the function must open no files except its own package's and use no network.
                Names of files, names of hub models and switches of how to read files are not safe.
                None declares nothing; a recipe then needs the caller's ``trust=True``.
        """
        safe = None if safe_options is None else tuple(safe_options)
        known = inspect.signature(factory).parameters if safe else {}
        if unknown := [option for option in safe or () if option not in known]:
            raise ValueError(
                f"{self.package}: safe_options of backend {name!r} must be among "
                f"{', '.join(known)}, got {unknown[0]!r}."
            )
        self._offer("backend", name, factory, safe_options=safe)

    def _offer(
        self,
        kind: str,
        name: str,
        factory: Callable[..., Any],
        example: Example | None = None,
        safe_options: tuple[str, ...] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise TypeError(f"{self.package}: the name of a {kind} must be a word, got {name!r}.")
        if not callable(factory):
            raise TypeError(
                f"{self.package}: {kind} {name!r} must be a class, or a function that makes one, "
                f"got {factory!r:.80}."
            )
        if any((o.kind, o.name) == (kind, name) for o in self.offers):
            raise ValueError(f"{self.package}: {kind} {name!r} must be offered once, got twice.")
        self.offers.append(Offer(kind, name, factory, self.package, example, safe_options))


def required(factory: Callable[..., Any]) -> list[str]:
    """The names of a factory's parameters without a default."""
    return [p.name for p in _named(factory) if p.default is p.empty]


def check_options(owner: str, factory: Callable[..., Any], options: Iterable[str]) -> None:
    """Check that a factory takes these options, and that no required option is missing.

    Raises:
        TypeError: an option is unknown or missing; the message lists the options.
    """
    named, given = [p.name for p in _named(factory)], list(options)
    takes = f"It takes {', '.join(named)}." if named else "It takes none."
    parameters = inspect.signature(factory).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in given:
            if option not in named:
                close = nearest(option, named)
                hint = f" Did you mean {' or '.join(close)}?" if close else ""
                raise TypeError(f"{owner} has no option {shown(option)}.{hint} {takes}")
    if missing := [name for name in required(factory) if name not in given]:
        raise TypeError(f"{owner} needs the option {missing[0]!r}. {takes}")


def _named(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that an option can name."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in inspect.signature(factory).parameters.values() if p.kind not in variadic]
