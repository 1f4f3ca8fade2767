"""Pictures by strangers: thousands of spoilt chunks, and what reading and replaying makes of them.

``python benchmarks/fuzz_pictures.py --count 100000 --seed 0`` spoils the text of a saved picture,
the recipe in it, or the bytes of the file, and reads it as ``composer show`` and ``composer
replay`` do, up to the sampling. It prints how many are read, how many raise which error, and the
slowest. Every error must be a ValueError, a TypeError, a LookupError or an UnknownNameError. An
audit hook notes every file outside of the installed packages that is opened, and whatever is run
or connected to while a text is read.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from fuzz_recipes import DOCUMENTED, old_recipes, spoilt

import composer
from composer import Sampler
from composer_studio.remembered import call_again, memory_of, read_memory

FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.mkdir", "os.remove", "os.rename")
"""Events that reading never causes; "open" is watched apart."""


class Watch:
    """Notes what the interpreter opens and runs while it is on."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.on, self.found, self._allowed = False, Counter[str](), allowed
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and not str(arguments[0]).startswith(self._allowed):
            self.found[f"open {arguments[0]}"] += 1
        if event.startswith(FORBIDDEN):
            self.found[event] += 1


def texts() -> list[str]:
    """The texts of pictures of all old recipes."""
    return [
        json.dumps({"composer": composer.__version__, "seed": 0, "recipe": recipe})
        for recipe in old_recipes()
    ]


def mutated(text: str, rng: random.Random) -> str:
    """A text with letters changed, cut, doubled; or with its recipe changed as JSON."""
    if rng.random() < 0.5:
        said = json.loads(text)
        said["recipe"] = spoilt(said["recipe"], old_recipes_once(), rng)
        return json.dumps(said)
    letters = list(text[:200_000])
    for _ in range(rng.randint(1, 8)):
        k = rng.randrange(len(letters))
        kind = rng.randrange(4)
        if kind == 0:
            letters[k] = chr(rng.choice((0, 34, 44, 58, 91, 93, 123, 125, 255, 0x2028, 57)))
        elif kind == 1:
            del letters[k : k + rng.randint(1, 40)]
        elif kind == 2:
            letters[k:k] = letters[k : k + rng.randint(1, 200)]
        else:
            letters[k:k] = rng.choice(("[" * 3000, "9" * 5000, "NaN", "null", '"\\ud800"'))
        letters = letters or [" "]
    return "".join(letters)


_OLD: list[dict[str, Any]] = []


def old_recipes_once() -> list[dict[str, Any]]:
    """:func:`fuzz_recipes.old_recipes`, read once."""
    if not _OLD:
        _OLD.extend(old_recipes())
    return _OLD


def read_text(text: str, backend: Any) -> str:
    """What becomes of one text: "read", or the name of an error."""
    try:
        memory = memory_of(text, "picture")
        call_again(memory)
        Sampler.from_recipe(memory.recipe, backend=backend)
    except Exception as error:
        return type(error).__name__ if type(error) in DOCUMENTED else f"UNDOCUMENTED {error!r:.200}"
    return "read"


def read_bytes(content: bytes, file: Path) -> str:
    """What becomes of the bytes of one file."""
    file.write_bytes(content)
    try:
        read_memory(file)
    except ValueError:
        return "ValueError of the file"
    except Exception as error:
        return f"UNDOCUMENTED {error!r:.200}"
    return "read of the file"


def fuzz(count: int, seed: int, folder: Path, watch: Watch) -> tuple[Counter[str], float]:
    """(what became of so many spoilt ones, processor seconds of the slowest)."""
    rng, outcomes, slowest = random.Random(seed), Counter[str](), 0.0
    backend = composer.load_backend("mnist")
    result = Sampler(backend, num_inference_steps=1).sample(1)
    files = [result.save(folder / name)[0].read_bytes() for name in ("a.png", "a.webp")]
    known = texts()
    for text in known:  # what is imported when it is first needed
        read_text(text, backend)
    for _ in range(count):
        if rng.random() < 0.2:
            content = bytearray(rng.choice(files))
            for _ in range(rng.randint(1, 6)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            began = time.process_time()
            outcome = read_bytes(bytes(content[: rng.randint(1, 2 * len(content))]), folder / "b")
        else:
            text = mutated(rng.choice(known), rng)
            began, watch.on = time.process_time(), True
            outcome = read_text(text, backend)
            watch.on = False
        outcomes[outcome] += 1
        slowest = max(slowest, time.process_time() - began)
    return outcomes, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    watch = Watch(allowed=(sys.prefix, str(Path(composer.__file__).parents[1])))
    with tempfile.TemporaryDirectory() as folder:
        outcomes, slowest = fuzz(arguments.count, arguments.seed, Path(folder), watch)
    for outcome, times in outcomes.most_common():
        print(f"{times:8} {outcome}")
    print(f"slowest {slowest:.2f} s of processor time")
    print(f"opened or run: {dict(watch.found) or 'nothing'}")


if __name__ == "__main__":
    main()
