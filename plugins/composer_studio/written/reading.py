"""Recipes from files, and the library's recipes that they mean."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from composer import installed
from composer.recipes import encode
from composer_studio.written import lines
from composer_studio.written.annotations import Pairs, Picture
from composer_studio.written.errors import WrittenError, problems_of
from composer_studio.written.models import Models, Thing, Word, Written
from composer_studio.written.pictures import open_within

MAX_FILE = 1_000_000
"""Bytes of a recipe that is read."""


@dataclass(frozen=True)
class Script:
    """A recipe that was read.

    Attributes:
        written: what it says, checked.
        source: the file, for sentences.
        folder: the pictures lie in it, whatever the recipe says; None lets them lie anywhere.
    """

    written: Written
    source: str
    folder: Path | None = None


def read_file(path: str | Path, changes: Mapping[str, Any] | None = None) -> Script:
    """Read a recipe that ends in .toml or .json.

    Args:
        path: the file.
        changes: {"plugins.cfg.scale": 3}: values that replace those of the file, or are added.

    Raises:
        WrittenError: what is wrong, with the line, the nearest name and the options there are.
    """
    file = Path(path)
    text = _text(file)
    return read_text(text, str(file), file.parent, changes, json=file.suffix == ".json")


def read_text(
    text: str,
    source: str,
    folder: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    json: bool = False,
) -> Script:
    """Read a recipe that is text, TOML or JSON; arguments as for :func:`read_table`.

    Raises:
        WrittenError: what is wrong.
    """
    data, places = parsed(text, source, json), lines.lines_of(text, json=json)
    return read_table(data, source, folder, changes, places)


def read_table(
    data: Mapping[str, Any],
    source: str,
    folder: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    places: Mapping[lines.Path, int] | None = None,
) -> Script:
    """Check a recipe that is a table already.

    Args:
        data: the table.
        source: what sentences about it begin with.
        folder: where its pictures lie; None for anywhere.
        changes: as for :func:`read_file`.
        places: the lines of the paths in it.

    Raises:
        WrittenError: what is wrong.
    """
    for path, value in (changes or {}).items():
        data = override(data, path, value)
    models = models_of_installed()
    try:
        written = models.whole.model_validate(data)
    except ValidationError as error:
        problems = problems_of(error, source, data, places or {}, models.options)
        raise WrittenError(problems) from error
    except RecursionError as error:
        raise WrittenError([f"{source}: it is nested too deeply."]) from error
    assert isinstance(written, Written)  # noqa: S101  # for mypy
    return Script(written, source, folder)


def override(data: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a table with one value at a dotted path.

    Raises:
        WrittenError: the path leads through what is no table.
    """
    first, _, rest = path.partition(".")
    if not rest:
        return {**data, first: value}
    inner = data.get(first, {})
    inner = {"use": inner} if isinstance(inner, str) else inner
    if not isinstance(inner, Mapping):
        raise WrittenError([f"{path}: {first} is no table, got {type(inner).__name__}."])
    return {**data, first: override(inner, rest, value)}


def library_recipe(script: Script) -> dict[str, Any]:
    """The recipe of the library: ``Sampler.from_recipe`` reads it. Its pictures are in it.

    Raises:
        WrittenError: a picture is not there, not in the folder, or none.
    """
    written = script.written
    coder = _Coder(script)
    backend = coder.code(written.backend)
    return {
        "backend": {"name": written.backend.name, "options": backend["options"]},
        "plugins": [coder.code(plugin) for plugin in written.plugins.values()],
        "solver": coder.code(written.solver),
        "num_inference_steps": written.steps,
        "max_rows": written.max_rows,
        "call": {"condition": coder.code(written.condition), "seeds": list(written.seeds)},
    }


@cache
def models_of_installed() -> Models:
    """The models of the installed packages; made once a process."""
    return Models(installed())


@dataclass(frozen=True)
class _Coder:
    script: Script

    def code(self, value: Any) -> Any:
        """A value as the library's recipes have it."""
        if isinstance(value, Thing):
            options = {name: self.code(option) for name, option in value.options.items()}
            return {value.kind: value.name, "options": options}
        if isinstance(value, Word):
            if value.key == "unconditional":
                return {"unconditional": True}
            return {"scheduler": value.key, "config": dict(value.config)}
        if isinstance(value, Pairs):
            return {"pairs": [[self.code(k), self.code(v)] for k, v in value]}
        if isinstance(value, Picture):
            return encode(open_within(value, self.script.folder, self.script.source), installed())
        if isinstance(value, list | tuple):
            return [self.code(one) for one in value]
        return value


def code_of(value: Any, script: Script) -> Any:
    """One value of a script as the library's recipes have it."""
    return _Coder(script).code(value)


def _text(file: Path) -> str:
    if file.suffix not in (".toml", ".json"):
        raise WrittenError([f"{file}: a recipe must end in .toml or .json."])
    try:
        with file.open("rb") as content:
            raw = content.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise WrittenError([f"{file}: it has more than {MAX_FILE} bytes. Make it smaller."])
        return raw.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise WrittenError([f"{file}: it cannot be read ({error.strerror})."]) from error
    except UnicodeDecodeError as error:
        raise WrittenError([f"{file}: it is no text in UTF-8."]) from error


def parsed(text: str, source: str, json: bool = False) -> dict[str, Any]:
    """The table that a text is, TOML or JSON.

    Raises:
        WrittenError: it is none.
    """
    try:
        data = loads(text) if json else tomllib.loads(text)
    except JSONDecodeError as error:
        words = f"{source}:{error.lineno}: it is no JSON ({error.msg}, column {error.colno})."
        raise WrittenError([words]) from error
    except (ValueError, RecursionError) as error:
        raise WrittenError([f"{source}: it cannot be read ({_first_line(error)})."]) from error
    if not isinstance(data, dict):
        raise WrittenError([f"{source}: a recipe must be a table of keys."])
    return {key: value for key, value in data.items() if key != "$schema"}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def changes_of(settings: Sequence[str]) -> dict[str, Any]:
    """{path: value} of texts such as "plugins.cfg.scale=3"; a value is TOML, or else text.

    Raises:
        WrittenError: one has no "=".
    """
    changes = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path.strip():
            raise WrittenError([f"--set must be such as plugins.cfg.scale=3, got {setting!r}."])
        changes[path.strip()] = toml_value(value.strip())
    return changes


def toml_value(text: str) -> Any:
    """A value of TOML, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except (ValueError, RecursionError):
        return text


def coded_score(written: Any) -> dict[str, Any]:
    """A score, a name or a table, as the library's recipes have it; it may lack options.

    Raises:
        WrittenError: no such score, or no such option.
    """
    script = read_table({"backend": "mnist", "output": {"score": written}}, "--score")
    coded: dict[str, Any] = code_of(script.written.output.score, script)
    return coded
