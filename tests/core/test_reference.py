"""docs/reference.md lists every public name of the core, and no other."""

import ast
import importlib
import re
from pathlib import Path
from typing import TypeVar

import composer
import composer.authoring

ROOT = Path(composer.__file__).parent
PAGE = ROOT.parent / "docs" / "reference.md"


def listed():
    """(module, name) in the order of the page; the name is None of a module that is inside."""
    found, module = [], None
    for line in PAGE.read_text().splitlines():
        if heading := re.fullmatch(r"### `([\w.]+)`", line):
            module = heading[1]
        elif row := re.match(r"\| `([\w.]+)` \|", line):
            found.append((row[1], None) if "." in row[1] else (module, row[1]))
    return found


def public_modules():
    """Modules that are not underscored, nor parts of a package that states what it offers."""
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        package = ROOT.parent.joinpath(*parts[:-1], "__init__.py")
        part = len(parts) > 2 and "\n__all__ = " in package.read_text()
        if not part and not any(name.startswith("_") for name in parts):
            yield ".".join(parts), path


def defined(path):
    """The names without an underscore that a module defines at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            nodes = (n for target in node.targets for n in ast.walk(target))
            names = [n.id for n in nodes if isinstance(n, ast.Name)]
        elif isinstance(node, ast.AnnAssign):
            names = [node.target.id]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def value(module, name):
    found = importlib.import_module(module)
    return found if name is None else getattr(found, name)


def test_what_is_listed_is_there_and_stands_there_once():
    found = listed()
    assert len(found) > 150
    assert len(set(found)) == len(found)
    for module, name in found:
        value(module, name)


def test_every_public_name_is_listed():
    """In its module, or in another from which to import the same object by the same name; but for
    those of modules that are listed as a whole."""
    offered = [*listed(), *(("composer.authoring", name) for name in composer.authoring.__all__)]
    by_name, inside = {}, {module for module, name in offered if name is None}
    for module, name in offered:
        by_name.setdefault(name, []).append(value(module, name))
    missing = [
        f"{module}.{name}"
        for module, path in public_modules()
        for name in defined(path)
        if module not in inside
        and not any(value(module, name) is known for known in by_name.get(name, ()))
        and not isinstance(value(module, name), TypeVar)
    ]
    assert not missing, f"list in docs/reference.md, or begin with an underscore: {missing}"
