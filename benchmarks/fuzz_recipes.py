"""Recipes by strangers: thousands of spoilt ones, and what ``Sampler.from_recipe`` makes of them.

``python benchmarks/fuzz_recipes.py --count 100000 --seed 0`` spoils the recipes of version 0.1 at
random places and prints how many are read, how many raise which error, and the slowest. Every
error must be a ValueError, a TypeError, a LookupError or an UnknownNameError.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import composer
from composer import Registry, Sampler, UnknownNameError

OLD = Path(__file__).parent.parent / "tests" / "core" / "recipes_0_1"
DOCUMENTED = frozenset({ValueError, TypeError, LookupError, UnknownNameError})
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 16, 100, 1000, 10**5, 10**6, 10**9, 2**31, 2**62),
    *(2**63, 10**30, 0.0, -0.5, 0.5, 1.5, 1e-300, 1e300, math.inf, -math.inf, math.nan),
    *("", "flip", "identity", "mnist", "weighted", "/etc/passwd", "~", "owner/name", "x" * 200),
    *("\ud800", "\0", "iVBORw0KGgo", "AAAA", [], [0], [[0, 1]], [1.0] * 40, {}, {"": 0}),
    *({"pairs": []}, {"pairs": [[1, 2]]}, {"pairs": [[[], 1]]}, {"unregistered": "Any"}),
    *({"unconditional": True}, {"plugin": "cfg"}, {"plugin": "cfg", "options": {"scale": 2.0}}),
    *({"plugin": ["cfg"]}, {"transform": "flip", "options": {}}, {"transform": "composed"}),
    *({"solver": "ddpm", "options": {}}, {"decomposition": "bands"}, {"score": "reads_as"}),
    *({"scheduler": "DDIMScheduler", "config": {}}, {"scheduler": "os", "config": {}}),
    *({"tensor": "AAAA"}, {"image": "AAAA"}, {"array": ""}, {"tensor": None}, {"image": 3}),
)


def old_recipes() -> list[dict[str, Any]]:
    """A recipe of each plugin, as version 0.1 wrote it."""
    return [json.loads(file.read_text()) for file in sorted(OLD.glob("*.json"))]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of all values inside a recipe."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def spoilt(recipe: dict[str, Any], others: list[dict[str, Any]], rng: random.Random) -> Any:
    """A copy of a recipe with one to three changes."""
    changed = copy.deepcopy(recipe)
    for _ in range(rng.randint(1, 3)):
        found = list(places(changed))
        if found:
            container, key = rng.choice(found)
            rng.choice(CHANGES)(container, key, others, rng)
    return changed


def _replace(container: Any, key: Any, others: Any, rng: random.Random) -> None:
    container[key] = copy.deepcopy(rng.choice(VALUES))


def _delete(container: Any, key: Any, others: Any, rng: random.Random) -> None:
    del container[key]


def _swap(container: Any, key: Any, others: Any, rng: random.Random) -> None:
    other, place = rng.choice(list(places(rng.choice(others))))
    container[key] = copy.deepcopy(other[place])


def _rename(container: Any, key: Any, others: Any, rng: random.Random) -> None:
    if isinstance(container, dict):
        container[key[1:] + key[:1]] = container.pop(key)


def _grow(container: Any, key: Any, others: Any, rng: random.Random) -> None:
    if isinstance(container[key], list):
        container[key] = container[key] * rng.choice((2, 10, 100))
    elif isinstance(container[key], int | float):
        container[key] = container[key] * rng.choice((-1, 0.5, 3, 10**6))


def _wrap(container: Any, key: Any, others: Any, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 100))):
        container[key] = rng.choice(([container[key]], {"pairs": [[1, container[key]]]}))


def _letters(container: Any, key: Any, others: Any, rng: random.Random) -> None:
    if isinstance(container[key], str) and container[key]:
        at, length = rng.randrange(len(container[key])), rng.choice((0, 1, 8))
        noise = "".join(rng.choice("ABCDwxyz0189+/=_ ") for _ in range(length))
        container[key] = container[key][:at] + noise + container[key][at + rng.choice((0, 1, 8)) :]


CHANGES = (_replace, _replace, _delete, _swap, _rename, _grow, _wrap, _letters)


def cached() -> Registry:
    """The installed registry, each backend loaded once for its options."""
    registry = composer.installed()
    offers = {
        key: dataclasses.replace(offer, factory=_once(offer.factory))
        if offer.kind == "backend"
        else offer
        for key, offer in registry.offers.items()
    }
    return Registry(offers, registry.packages)


def _once(factory: Any) -> Any:
    made: dict[str, Any] = {}

    @functools.wraps(factory)
    def load(**options: Any) -> Any:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = factory(**options)
        return made[key]

    return load


def outcome(recipe: Any, registry: Registry) -> tuple[str, bool]:
    """What comes of reading a recipe, and whether that is documented."""
    try:
        Sampler.from_recipe(recipe, registry)
        composer.call_of(recipe, registry)
    except Exception as error:
        return type(error).__name__, type(error) in DOCUMENTED and 0 < len(str(error)) < 5000
    return "read", True


def main() -> None:
    """Spoil and read, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    rng, registry, recipes = random.Random(chosen.seed), cached(), old_recipes()
    counts: Counter[str] = Counter()
    slow: list[tuple[float, str]] = []
    wrong: list[str] = []
    for _ in range(chosen.count):
        recipe = spoilt(rng.choice(recipes), recipes, rng)
        began = time.perf_counter()
        name, documented = outcome(recipe, registry)
        took = time.perf_counter() - began
        counts[name] += 1
        slow = sorted([*slow, (took, repr(recipe)[:300])], reverse=True)[:5]
        if not documented:
            wrong.append(f"{name}: {recipe!r:.2000}")
    for name, count in counts.most_common():
        print(f"{name:18} {count:7}")
    for took, recipe in slow:
        print(f"{took:.2f} s  {recipe}")
    print(f"undocumented: {len(wrong)} of {chosen.count}")
    for line in wrong[:10]:
        print(line)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
