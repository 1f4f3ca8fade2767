"""The house: who imports whom, read from the source."""

import ast
from pathlib import Path

import pytest
from mutations import MUTATIONS

import composer.authoring
import composer_plugins

ROOT = Path(__file__).parents[1]
PLACES = {"composer": ROOT / "composer"}
PLACES |= {p.name: p for p in (ROOT / "plugins").iterdir() if (p / "__init__.py").is_file()}
STOREYS = ("composer", "composer_plugins", "composer_lab", "composer_studio")
"""Each may import those before it."""


def modules():
    """{dotted name: path} of every module of the packages."""
    found = {}
    for name, place in PLACES.items():
        for path in sorted(place.rglob("*.py")):
            parts = path.relative_to(place).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((name, *parts))] = path
    return found


MODULES = modules()


def imports(module):
    """(module, name or None) for each name that a module imports of ours, wherever it stands:
    at the top, within a function, or for type checkers alone."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            found = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for source, name in found:
            if source.split(".")[0] not in PLACES:
                continue
            inside = f"{source}.{name}"
            yield (inside, None) if inside in MODULES else (source, name)


def within(module, package):
    return module == package or module.startswith(f"{package}.")


def test_imports_go_down_the_storeys():
    assert {"composer", "composer_plugins", "composer_lab"} <= PLACES.keys() <= set(STOREYS)
    upwards = [
        (module, source)
        for module in MODULES
        for source, _ in imports(module)
        if STOREYS.index(source.split(".")[0]) > STOREYS.index(module.split(".")[0])
    ]
    assert not upwards


def circle(graph):
    """The modules of a circle of imports, if there is one."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        found = next(filter(None, map(visit, sorted(graph[module]))), [])
        path.pop()
        done.add(module)
        return found

    return next(filter(None, map(visit, graph)), [])


def test_the_core_has_no_circle_of_imports():
    """Imports for type checkers and within functions included; ``composer`` itself imports all."""
    core = [m for m in MODULES if within(m, "composer") and m != "composer"]
    graph = {m: {source for source, _ in imports(m)} - {"composer"} for m in core}
    found = circle(graph)
    assert not found, " imports ".join(found)
    assert all(source in MODULES for sources in graph.values() for source in sources)


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


PLUGIN_FOLDERS = ("guidance", "illusions", "editing", "steering")
PUBLIC = (
    *("composer", "composer.authoring", "composer.arguments", "composer.images"),
    *("composer.predictions", "composer.schedules", "composer.solvers"),
    *("composer.errors", "composer.limits", "composer.named"),
)
"""What plugins may import of the core."""
MODELS = ("composer.writing", "composer.generators", "composer.reparametrised", "composer.commands")
"""What backends may import too: they read and write files, and offer commands."""
COMMON = ("composer_plugins.filters",)
"""What belongs to no folder."""
SCHEDULERS = ("composer_plugins.backends.diffusers_unet.loading", "composer.solvers._schedulers")
CHOOSER = ("composer_plugins.steering.reads_as", "composer_plugins.backends.mnist.readers")
EXCEPTIONS = {SCHEDULERS, CHOOSER}
"""The loader and DiffusersSolver know the same schedulers; the score of digits is a network that
comes with their model."""


def folder_of(module):
    """'composer_plugins.guidance' of a module in it; a module in no folder is its own."""
    return ".".join(module.split(".")[:2])


def may_import(module, source, name):
    """Whether a built-in plugin may: the core's public modules, its own folder, what belongs to
    none, and by its public name what another folder offers."""
    backend = within(module, "composer_plugins.backends")
    if source in PUBLIC or (backend and any(within(source, m) for m in MODELS)):
        return True
    if (module, source) in EXCEPTIONS:
        return True
    if within(source, folder_of(module)) or source in COMMON:
        return True
    return name in composer_plugins.__all__


PLUGINS = [m for m in MODULES if within(m, "composer_plugins") and m != "composer_plugins"]


@pytest.mark.parametrize("module", PLUGINS)
def test_built_in_plugins_import_what_anybody_may(module):
    assert [i for i in imports(module) if not may_import(module, *i)] == []


def test_nobody_outside_the_core_imports_what_is_underscored_in_it():
    found = {
        (module, source)
        for module in MODULES
        if not within(module, "composer")
        for source, name in imports(module)
        if within(source, "composer") and "._" in f"{source}.{name}"
    }
    assert found == {SCHEDULERS}


def test_backends_import_no_plugins():
    folders = [f"composer_plugins.{folder}" for folder in (*PLUGIN_FOLDERS, "cascade")]
    assert all(folder in MODULES for folder in folders)
    found = [
        (module, source)
        for module in MODULES
        if within(module, "composer_plugins.backends")
        for source, _ in imports(module)
        if any(within(source, folder) for folder in folders)
    ]
    assert found == []


def test_what_mutations_replace_stands_in_its_file():
    for mutation in MUTATIONS:
        assert (ROOT / mutation.file).read_text().count(mutation.before) == 1, mutation.name
        assert (ROOT / mutation.tests).is_file(), mutation.name


def test_every_name_for_authors_has_its_line_in_the_documentation():
    page = (ROOT / "docs" / "authoring.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = [name.strip("` ").split("(")[0] for row in rows for name in row.split(", `")]
    assert sorted(listed) == sorted(composer.authoring.__all__)
