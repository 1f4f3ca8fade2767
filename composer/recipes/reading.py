"""Read a sampling call from JSON: the arguments of ``Sampler`` and of ``sample``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from composer._checks import checked_backend
from composer.arguments import FromRecipe, checked_seeds
from composer.errors import UnknownNameError, said, shortened, shown
from composer.limits import MAX_SEEDS
from composer.offers import Offer, check_options
from composer.recipes.bounds import check_pixels, size_of
from composer.recipes.pictures import read_picture, read_tensor
from composer.recipes.schedulers import scheduler_of
from composer.recipes.writing import KINDS, current_version
from composer.registry import Registry, installed, load_from
from composer.requests import UNCONDITIONAL, Each

Given = Mapping[int | str, object]
Trust = bool | Collection[str]
WHOLE = "backend"
"""The entry of ``trust=`` that allows all options of a backend."""


def arguments_of(
    recipe: Any,
    registry: Registry | None = None,
    *,
    backend: Any = None,
    plugins: Given | Sequence[object] | None = None,
    trust: Trust = (),
) -> dict[str, Any]:
    """The arguments of ``Sampler`` that a recipe describes; see ``Sampler.from_recipe``.

    Raises:
        ValueError, TypeError: it is not a recipe, exceeds a limit, or needs trust.
        UnknownNameError, LookupError: it contains a name that is not registered.
    """
    needed = {"backend", "plugins", "solver", "num_inference_steps"}
    if not isinstance(recipe, Mapping) or not needed <= recipe.keys():
        raise ValueError(
            f"Recipe: it must be a dict with the keys {sorted(needed)}. Use result.recipe."
        )
    size = size_of(recipe)
    _warn_of_version(recipe.get("composer"))
    names = registry or installed()
    if backend is None:
        backend = _backend(recipe["backend"], names, trust)
    check_pixels(size, checked_backend(backend).shape)
    if isinstance(plugins, list | tuple):
        reader, chosen = Reader(names), tuple(plugins)
    else:
        reader = Reader(names, {} if plugins is None else _given(plugins))
        chosen = reader.plugins(recipe["plugins"])
    solver = reader.read(recipe["solver"])
    reader.check_all_used()
    return {
        "plugins": chosen,
        "solver": solver,
        "num_inference_steps": recipe["num_inference_steps"],
        "max_rows": recipe.get("max_rows"),
        "backend": backend,
    }


def call_of(recipe: Any, registry: Registry | None = None) -> dict[str, Any]:
    """The arguments of ``sample`` that a recipe holds: condition, seeds, and x and t if given.

    Raises:
        ValueError, TypeError, LookupError: as in ``Sampler.from_recipe``.
    """
    call = recipe.get("call") if isinstance(recipe, Mapping) else None
    if not isinstance(call, Mapping) or call.keys() - {"x", "t"} != {"condition", "seeds"}:
        raise ValueError("Recipe: it has no call with condition and seeds. Use result.recipe.")
    seeds = call["seeds"]
    if not isinstance(seeds, list | tuple) or len(seeds) > MAX_SEEDS:
        raise ValueError(
            f"Recipe: seeds must be a list of at most {MAX_SEEDS}, got {shown(seeds)}."
        )
    check_pixels(size_of(call), (1, 1))
    reader = Reader(registry or installed())
    rest = {name: reader.read(value) for name, value in call.items() if name != "seeds"}
    return {**rest, "seeds": list(checked_seeds(seeds))}


def decode(value: Any, registry: Registry) -> Any:
    """The value that :func:`~composer.recipes.encode` wrote, lists as tuples.

    Raises:
        LookupError: it contains a name that is not registered.
    """
    return Reader(registry).decode(value)


@contextmanager
def documented(what: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn errors of objects that a recipe makes into documented ones, with short messages.

    Raises:
        ValueError: begins with ``what``; replaces any error except the types ``passed``.
    """
    try:
        yield
    except (KeyError, IndexError) as error:  # LookupErrors raised by other code
        raise ValueError(f"{what} ({said(error)}).") from error
    except UnknownNameError:  # its message is short already
        raise
    except passed as error:
        words = str(error)
        if (short := shortened(words)) != words:
            raise ValueError(short) from error
        raise
    except Exception as error:
        raise ValueError(f"{what} ({said(error)}).") from error


@dataclass(frozen=True)
class Reader:
    """Make the objects that a recipe describes.

    Args:
        registry: the names that the recipe may use.
        given: objects for unregistered classes by class name, and for plugins of the list by index.
    """

    registry: Registry
    given: Given = field(default_factory=dict)
    used: set[int | str] = field(default_factory=set)

    def read(self, value: Any) -> Any:
        """Like :meth:`decode`, but raise only documented errors."""
        with documented("Recipe: it is malformed", ValueError, LookupError):
            return self.decode(value)

    def plugins(self, listed: Any) -> tuple[object, ...]:
        """The plugins of a list, with objects given for some indices."""
        if not isinstance(listed, list | tuple):
            raise ValueError(f"Recipe: plugins must be a list, got {shown(listed)}.")
        places = range(len(listed))
        if outside := [key for key in self.given if isinstance(key, int) and key not in places]:
            raise ValueError(
                f"Recipe: plugins= must give indices from 0 to {len(listed) - 1}, the places in "
                f"the recipe's list, got {outside[0]}."
            )
        self.used.update(places)
        return tuple(
            self.given[place] if place in self.given else self.read(value)
            for place, value in enumerate(listed)
        )

    def decode(self, value: Any) -> Any:
        """Decode one value and the values in it."""
        if isinstance(value, str):
            return FromRecipe(value)
        if isinstance(value, list | tuple):
            return tuple(self.decode(v) for v in value)
        if not isinstance(value, Mapping):
            return value
        for kind in KINDS:
            if kind in value:
                return self._made(self.registry.find(kind, value[kind]), value.get("options", {}))
        for key, read in _READERS.items():
            if key in value:
                return read(value)
        if "each" in value:
            return Each(self.decode(value["each"]))
        if "pairs" in value:
            return {self.decode(k): self.decode(v) for k, v in value["pairs"]}
        return self._unregistered(value)

    def _made(self, offer: Offer, options: Any) -> Any:
        what = f"Recipe: {offer.kind} {shown(offer.name)}"
        if not isinstance(options, Mapping):
            raise ValueError(f"{what} must have a dict of options, got {shown(options)}.")
        try:
            check_options(what, offer.factory, options)
        except TypeError as error:
            raise ValueError(str(error)) from error
        decoded = {name: self.decode(option) for name, option in options.items()}
        with documented(f"{what} cannot be made", UnknownNameError):
            return offer.factory(**decoded)

    def _unregistered(self, value: Mapping[str, Any]) -> Any:
        name = value.get("unregistered")
        if isinstance(name, str) and name in self.given:
            self.used.add(name)
            return self.given[name]
        what = shown(value if name is None else name)
        raise LookupError(
            f"Recipe: {what} is not registered. Install its package, or pass an object as "
            f"plugins={{{what}: ...}}."
        )

    def check_all_used(self) -> None:
        """Raise a ValueError if the recipe does not use an object that was given."""
        if unused := sorted(map(str, self.given.keys() - self.used)):
            raise ValueError(
                f"Recipe: plugins= gives {shown(unused[0])}, which the recipe does not contain. "
                "Give the class name that the recipe has, or an index of its list."
            )


_READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "unconditional": lambda value: UNCONDITIONAL,
    "tensor": lambda value: read_tensor(value["tensor"]),
    "image": lambda value: read_picture(value["image"]),
    "array": lambda value: read_tensor(value["array"]).numpy(),
    "scheduler": lambda value: scheduler_of(value["scheduler"], value.get("config")),
}


def _given(plugins: Any) -> Given:
    """``plugins=`` as objects by class name and by index."""
    if not isinstance(plugins, Mapping):
        raise TypeError(
            f"plugins must be a dict from class names or indices to objects, or a list of all "
            f"plugins, got {shown(plugins)}."
        )
    if wrong := [key for key in plugins if not isinstance(key, str | int)]:
        raise TypeError(
            f"plugins must map class names or indices to objects, got {shown(wrong[0])}."
        )
    return plugins


def _backend(written: Any, registry: Registry, trust: Trust) -> Any:
    """Load the backend that a recipe names, with options that are safe or trusted."""
    if not isinstance(written, Mapping) or "name" not in written:
        named = written.get("unregistered") if isinstance(written, Mapping) else None
        what = shown(written if named is None else named)
        raise LookupError(f"Recipe: backend {what} is not registered. Pass your own as backend=.")
    options = written.get("options", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"Recipe: the backend's options must be a dict, got {shown(options)}.")
    offer = registry.find("backend", written["name"])
    what = f"Recipe: backend {shown(offer.name)}"
    check_options(what, offer.factory, options)
    _check_trusted(offer, options, trust)
    if nested := [name for name, value in options.items() if isinstance(value, Mapping)]:
        raise ValueError(f"{what} must have plain values as options, got a dict as {nested[0]}.")
    with documented(f"{what} cannot be loaded", ValueError, TypeError, UnknownNameError):
        return load_from(registry, offer.name, dict(options))


def _check_trusted(offer: Offer, options: Mapping[str, Any], trust: Trust) -> None:
    """Raise a ValueError if a recipe sets a backend option that is neither safe nor trusted."""
    trusted = {WHOLE} if trust is True else {trust} if isinstance(trust, str) else set(trust or ())
    if WHOLE in trusted:
        return
    if offer.safe_options is None:
        raise ValueError(
            f"Recipe: backend {shown(offer.name)} may read files or use the network. Pass "
            "trust=True if you trust the recipe, or your own backend as backend=."
        )
    if asked := sorted(options.keys() - trusted - set(offer.safe_options)):
        raise ValueError(
            f"Recipe: it sets {' and '.join(asked)} of backend {shown(offer.name)}, which may name "
            f"a file or a model of the hub. Pass trust={asked} if you trust it, or your own as "
            "backend=."
        )


def _warn_of_version(written: Any) -> None:
    """Warn if another minor version wrote the recipe."""
    ours = current_version()
    if isinstance(written, str) and written.split(".")[:2] != ours.split(".")[:2]:
        warnings.warn(
            f"Recipe: composer {shown(written)} wrote it, and composer {ours!r} reads it. The "
            "images may differ.",
            stacklevel=4,
        )
