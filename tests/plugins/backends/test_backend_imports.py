"""A model chooses its default solver, and nothing else that is put around it: a backend imports the
core, other backends and solvers."""

import ast
from pathlib import Path

import composer_plugins
from composer_plugins import backends, solvers

FOLDER = Path(backends.__file__).parent


def imports(file):
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_backends_import_the_core_solvers_and_each_other():
    ours = composer_plugins.__name__
    allowed = f"{backends.__name__}.", f"{solvers.__name__}."
    files = sorted(FOLDER.rglob("*.py"))
    found = {file: [name for name in imports(file) if name.startswith(ours)] for file in files}
    assert sum(map(len, found.values())) > 20
    assert not {
        (file.name, name)
        for file, names in found.items()
        for name in names
        if not name.startswith(allowed)
    }
