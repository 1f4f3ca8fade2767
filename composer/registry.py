"""Names for plugins, transforms, solvers and backends, offered by installed packages.

A package offers names by an entry point in the group ``composer`` whose target has a hook
``register_plugins(register)``. Installing it never changes a sample. If a package fails to load,
the registry keeps its error, and the others work.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from composer import hooks, solvers
from composer.errors import UnknownNameError, owned, shown
from composer.foreign import Foreign
from composer.markers import PROJECT
from composer.offers import Offer, Register, check_options, required
from composer.protocols import Backend
from composer.transforms import Composed, Inverse, Transform

OWN = "diffusion-composer"
ALLOWED = "COMPOSER_PLUGINS"
"""Environment variable: comma-separated names of the entry points to load; unset loads all."""


@dataclass(frozen=True)
class Package:
    """One entry point of the group: its package and, if it failed to load, its error."""

    name: str
    distribution: str
    version: str
    error: str | None = None


@dataclass(frozen=True)
class Registry:
    """All known names; :func:`installed` returns the registry of the installed packages."""

    offers: dict[tuple[str, str], Offer] = field(default_factory=dict)
    packages: tuple[Package, ...] = ()

    def find(self, kind: str, name: str) -> Offer:
        """The offer of this kind and name.

        Raises:
            UnknownNameError: there is none; the message lists the nearest names.
        """
        try:
            return self.offers[kind, name]
        except (KeyError, TypeError):
            known = [n for k, n in self.offers if k == kind]
            raise UnknownNameError(kind, name, known) from None

    def name_of(self, kind: str, factory: object) -> str | None:
        """The name under which a class is offered, or None."""
        return next(
            (o.name for o in self.offers.values() if o.kind == kind and o.factory is factory), None
        )

    def with_offers(self, register: Register) -> Registry:
        """This registry and the offers of one more package; its names must be new."""
        taken = [o for o in register.offers if (o.kind, o.name) in self.offers]
        if taken:
            first = taken[0]
            owner = self.offers[first.kind, first.name].package
            raise ValueError(
                f"{first.kind} {first.name!r} is already offered by {owner}. Choose another name."
            )
        added = {(o.kind, o.name): o for o in register.offers}
        return Registry({**self.offers, **added}, self.packages)


@functools.cache
def installed() -> Registry:
    """The registry of the installed packages, read once per process."""
    registry = Registry().with_offers(_own())
    allowed = os.environ.get(ALLOWED)
    names = None if allowed is None else {name.strip() for name in allowed.split(",")}
    # The library's offers first, so that no package can take their names.
    entries = entry_points(group=PROJECT)
    for entry in sorted(entries, key=lambda e: (_distribution(e) != OWN, e.name)):
        if names is None or entry.name in names:
            registry = _loaded(registry, entry)
    return registry


def get_transform(name: str | Transform) -> Transform:
    """A registered transform by name, with its default parameters; a Transform is returned as is.

    Raises:
        UnknownNameError: no such transform is registered.
        TypeError: it has parameters without defaults, or is neither a name nor a Transform.
    """
    if isinstance(name, Transform):
        return name
    if not isinstance(name, str):
        raise TypeError(f"transform must be a Transform or the name of one, got {shown(name)}.")
    offer = installed().find("transform", name)
    if needed := required(offer.factory):
        called = getattr(offer.factory, "__name__", name)
        made = f"{called}({', '.join(f'{parameter}=...' for parameter in needed)})"
        raise TypeError(f"transform {name!r} has no defaults. Give the object itself, {made}.")
    transform: Transform = offer.factory()
    return transform


def load_from(registry: Registry, name: str, options: dict[str, Any]) -> Backend:
    """:func:`composer.load_backend` from a registry; the backend remembers how it was loaded.

    A text that begins with "~/" names a place in the home folder, as recipes write such paths.
    """
    factory = registry.find("backend", name).factory
    check_options(f"backend {name!r}", factory, options)
    with owned(name):
        backend: Backend = factory(**{n: _expanded(v) for n, v in options.items()})
    # For recipes. A backend may be frozen; one with slots keeps nothing, and is named by its class.
    with contextlib.suppress(AttributeError):
        object.__setattr__(backend, "loaded_as", {"name": name, "options": dict(options)})
    return backend


def _expanded(option: Any) -> Any:
    home = isinstance(option, str) and option.startswith("~/")
    return os.path.expanduser(option) if home else option  # noqa: PTH111  # never raises


def _own() -> Register:
    register = Register("diffusion-composer (core)")
    register.solver("euler", solvers.Euler)
    register.solver("ddim", solvers.DDIM)
    register.solver("ddpm", solvers.DDPM)
    register.solver("heun", solvers.Heun)
    register.solver("dpm_pp", solvers.DPMSolverPP)
    register.solver("diffusers", solvers.DiffusersSolver)
    register.transform("composed", Composed)
    register.transform("inverse", Inverse)
    return register


def _distribution(entry: EntryPoint) -> str:
    name = None
    with Foreign():  # its metadata may be damaged
        name = entry.dist and entry.dist.name
    return name or "unknown"


def _loaded(registry: Registry, entry: EntryPoint) -> Registry:
    """The registry and what one entry point offers, or its error as a row."""
    distribution, version = _distribution(entry), "unknown"
    with Foreign() as loading:
        version = (entry.dist and entry.dist.version) or version
        register = Register(distribution)
        manager = hooks.manager()
        manager.register(entry.load(), name=entry.name)
        manager.check_pending()
        manager.hook.register_plugins(register=register)
        if not register.offers:
            raise ValueError("it offers nothing. Mark register_plugins with @composer.hookimpl.")
        registry = registry.with_offers(register)
    package = Package(entry.name, distribution, version, loading.error)
    return Registry(registry.offers, (*registry.packages, package))
