"""What is wrong with a recipe, in sentences with a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from composer.errors import nearest, shown
from composer_studio.written.annotations import AtPlacesError
from composer_studio.written.lines import Path


class WrittenError(ValueError):
    """A recipe that cannot be read; ``problems`` are all of its faults, a sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = tuple(problems)


def problems_of(
    error: ValidationError,
    source: str,
    data: Any,
    lines: Mapping[Path, int],
    options: Mapping[str, Sequence[str]],
) -> list[str]:
    """The sentences of an error, by line; one a place.

    Args:
        error: of a model.
        source: the file, as a sentence begins.
        data: what was read.
        lines: of the paths in it.
        options: {title of a model: what it takes}.
    """
    found: dict[Path, tuple[bool, int, str]] = {}
    details = list(_details(error, (), data))
    for path, model, detail in details:
        if detail["type"] == "missing" and _misspelt(path, details):
            continue
        text = _sentence(path, options.get(model, ()), detail)
        missing = detail["type"] == "missing"  # comes last: it may follow from a typo
        found.setdefault(path, (missing, _line_of(path, lines), text))
    located = sorted(found.values())
    return [f"{source}{f':{line}' if line else ''}: {text}" for _, line, text in located]


def _details(
    error: Exception, before: Path, data: Any
) -> Iterator[tuple[Path, str, Mapping[str, Any]]]:
    """(path, title of the model, detail) of each error, nested ones included."""
    if isinstance(error, PydanticCustomError):
        yield before, "", {"type": error.type, "msg": error.message(), "ctx": error.context}
    elif isinstance(error, AtPlacesError):
        for place, inner in error.found:
            yield from _details(inner, (*before, *place), _inside(data, place))
    elif isinstance(error, ValidationError):
        for detail in sorted(error.errors(), key=_of_none):
            path = _real(detail["loc"], data, detail["type"] == "missing")
            nested = detail.get("ctx", {}).get("error")
            if isinstance(nested, ValidationError | AtPlacesError | PydanticCustomError):
                yield from _details(nested, (*before, *path), _inside(data, path))
            else:
                model = ".".join(map(str, (error.title, *path[:-1])))
                yield (*before, *path), model, detail


def _misspelt(path: Path, details: Sequence[tuple[Path, str, Mapping[str, Any]]]) -> bool:
    """Whether an option is missing because its name was written wrong, which is said already."""
    written = [p for p, _, d in details if d["type"] == "extra_forbidden" and p[:-1] == path[:-1]]
    return any(path[-1] in nearest(str(wrong[-1]), [str(path[-1])]) for wrong in written)


def _of_none(detail: Mapping[str, Any]) -> bool:
    """Of what may be None: what else it may be says more."""
    return bool(detail["type"] == "none_required")


def _real(location: Sequence[str | int], data: Any, missing: bool) -> Path:
    """A location without the members of unions, which pydantic names in it."""
    path: Path = ()
    for n, part in enumerate(location):
        fits = isinstance(data, dict | list) and _has(data, part)
        if fits or (missing and n == len(location) - 1):
            path, data = (*path, part), _inside(data, (part,))
    return path


def _has(data: Any, part: str | int) -> bool:
    if isinstance(data, dict):
        return part in data
    return isinstance(part, int) and 0 <= part < len(data)


def _inside(data: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        if not isinstance(data, dict | list) or not _has(data, part):
            return None
        data = data[part]  # type: ignore[index]
    return data


def _sentence(path: Path, options: Sequence[str], detail: Mapping[str, Any]) -> str:
    where, name = ".".join(map(str, path)), str(path[-1]) if path else ""
    owner = ".".join(map(str, path[:-1])) or "the recipe"
    kind = detail["type"]
    takes = f" It takes {', '.join(options)}." if options else " It takes no options."
    if kind == "extra_forbidden":
        close = nearest(name, options)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        return f"{owner} has no option {shown(name)}.{hint}{takes}"
    if kind == "missing":
        return f"{owner} needs the option {shown(name)}.{takes}"
    words = str(detail["msg"]).replace("Input should be", "must be").rstrip(".")
    got = f", got {shown(detail['input'])}" if "input" in detail and "got" not in words else ""
    if words.startswith("must"):
        return f"{where or 'the recipe'} {words}{got}."
    return f"{where or 'the recipe'}: {words}{'' if words.endswith('?') else '.'}"


def _line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of a path, or of what it is in; 0 if nobody knows."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return min(lines.values(), default=0)
