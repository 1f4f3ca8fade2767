"""The models that a page offers: those of the package, or those that its owner names."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from composer import Backend, UnknownNameError, installed, load_backend
from composer.offers import required
from composer_studio.written import Thing, read_table


def free_backends() -> list[str]:
    """Backends that need no file and no network: all of their options may be left out."""
    offers = [o for (kind, _), o in installed().offers.items() if kind == "backend"]
    free = [o for o in offers if o.safe_options is not None and not required(o.factory)]
    return [offer.name for offer in free]


class Served:
    """Models by name, each loaded once, when it is first used.

    Args:
        named: names, or tables such as {"use": "deepfloyd", "model": "FOLDER"}; empty for the free
            ones.

    Raises:
        WrittenError: one is no backend, or has other options.
    """

    def __init__(self, named: Sequence[Any] = ()) -> None:
        things: list[Thing] = [
            read_table({"backend": one}, "--backend").written.backend
            for one in named or free_backends()
        ]
        self._things = {thing.name: thing for thing in things}
        self._loaded: dict[str, Backend] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._things)

    def load(self, name: str) -> Backend:
        """The model of a name.

        Raises:
            UnknownNameError: the page does not offer it.
            ValueError, TypeError, OSError, ImportError: it cannot be loaded.
        """
        if name not in self._things:
            raise UnknownNameError("backend of this page", name, self.names)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_backend(name, **self._things[name].options)
            return self._loaded[name]

    def named_alone(self, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """A recipe with what its owner set for the backend, and the options that it loses."""
        written = table.get("backend", next(iter(self._things)))
        options = dict(written) if isinstance(written, Mapping) else {"use": written}
        name = options.pop("use", None)
        if not isinstance(name, str) or name not in self._things:
            raise UnknownNameError("backend of this page", name, self.names)
        thing = self._things[name]
        lost = [option for option in options if options[option] != thing.options.get(option)]
        return {**table, "backend": {"use": name, **thing.options}}, lost
