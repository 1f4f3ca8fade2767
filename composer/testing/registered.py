"""The registered transforms and decompositions that need no arguments."""

from __future__ import annotations

from typing import Any

from composer.offers import required
from composer.registry import Registry, installed
from composer.transforms import Transform


def registered_transforms(registry: Registry | None = None) -> dict[str, Transform]:
    """Every registered transform whose parameters all have defaults, by name."""
    return _made("transform", registry)


def registered_decompositions(registry: Registry | None = None) -> dict[str, Any]:
    """Every registered decomposition whose parameters all have defaults, by name."""
    return _made("decomposition", registry)


def _made(kind: str, registry: Registry | None) -> dict[str, Any]:
    offers = (registry or installed()).offers.values()
    return {o.name: o.factory() for o in offers if o.kind == kind and not required(o.factory)}
