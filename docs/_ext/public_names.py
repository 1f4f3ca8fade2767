"""Write the reference: a page per module, with the docstring of each of its public names.

The names of the core are those of docs/reference.md, which a test compares with the source; the
names of the other packages are in their ``__all__``. Each object is described once.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathematics import escaped
from pages import heading, write_folder
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import composer

STOREYS = {
    "composer": "The core",
    "composer_plugins": "What you put into a Sampler",
    "composer_lab": "Training, evaluation, figures",
    "composer_studio": "Without Python",
}
FOLDER = "api"
Names = dict[str, list[str]]
"""The public names of each module, in order."""


def tables(page: Path) -> dict[str, dict[str, str]]:
    """{module: {name: what it is}}, from docs/reference.md."""
    found: dict[str, dict[str, str]] = {}
    for line in page.read_text().splitlines():
        if title := re.fullmatch(r"### `([\w.]+)`", line):
            names = found.setdefault(title[1], {})
        elif row := re.match(r"\| `(\w+)` \| (.*) \|", line):
            names[row[1]] = row[2]
    return found


def of_package(package: str) -> Names:
    """The ``__all__`` of a package and of the packages in it."""
    root = importlib.import_module(package)
    within = pkgutil.walk_packages(root.__path__, f"{package}.")
    packages = (package, *(info.name for info in within if info.ispkg))
    modules = {name: importlib.import_module(name) for name in packages}
    return {name: list(m.__all__) for name, m in modules.items() if hasattr(m, "__all__")}


def directive(module: str, name: str, about: str = "") -> str:
    """What Sphinx shall show of a name; of a constant, what the table says about it."""
    value: Any = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        return f".. auto{kind}:: {module}.{name}\n   :members:\n\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {module}.{name}\n\n"
    if ("", name) in ModuleAnalyzer.for_module(module).find_attr_docs():
        return f".. autodata:: {module}.{name}\n   :no-value:\n\n"
    value = "" if about else f"   :value: {value}\n"
    text = escaped(about.replace("\\|", "|").replace("`", "``"))
    return f".. py:data:: {module}.{name}\n{value}\n   {text}\n\n"


@dataclass
class Reference:
    """The pages, and the objects that they describe already."""

    about: dict[str, dict[str, str]]
    pages: dict[str, str] = field(default_factory=dict)
    known: set[tuple[str, int]] = field(default_factory=set)

    def add(self, title: str, names: Iterable[tuple[str, str]]) -> None:
        """Add a page with the names that no page describes yet; the title is a module's."""
        text = ""
        for module, name in names:
            key = name, id(getattr(importlib.import_module(module), name))
            if key not in self.known:
                self.known.add(key)
                text += directive(module, name, self.about.get(module, {}).get(name, ""))
        if text:
            opening = heading(title, "=") + f".. automodule:: {title}\n   :no-members:\n\n"
            self.pages[title] = self.pages.get(title, opening) + text

    def index(self) -> str:
        """The first page, with a list of the others by package."""
        text = heading("Every public name", "=")
        text += "In one table: :doc:`/reference`. What plugins, views and models are called in"
        text += " recipes: ``composer plugins``.\n\n"
        for package, caption in STOREYS.items():
            text += f".. toctree::\n   :caption: {caption}\n   :maxdepth: 1\n\n"
            text += "".join(f"   {page}\n" for page in self.pages if page.split(".")[0] == package)
            text += "\n"
        return text


def by_folder(names: Names) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The names of ``composer_plugins`` by the folder of their purpose, then the other packages."""
    folders: dict[str, list[tuple[str, str]]] = {}
    for name in names.pop("composer_plugins"):
        home = getattr(importlib.import_module("composer_plugins"), name).__module__
        folders.setdefault(".".join(home.split(".")[:2]), []).append(("composer_plugins", name))
    yield from sorted(folders.items())
    yield from all_of(names)


def all_of(names: Names) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for module, its in names.items():
        yield module, [(module, name) for name in its]


def backends() -> str:
    """What ``load_backend`` loads, with its options, by name."""
    text = heading("Backends by name", "=")
    text += "``load_backend(name, **options)`` calls these functions with the options.\n\n"
    for (kind, name), offer in composer.installed().offers.items():
        if kind == "backend":
            made = f"{offer.factory.__module__}.{offer.factory.__qualname__}"
            text += heading(name, "-") + f".. autofunction:: {made}\n\n"
    return text


def write(app: Sphinx) -> None:
    """Write the folder ``api``, before Sphinx looks for pages."""
    reference = Reference(tables(Path(app.srcdir) / "reference.md"))
    authoring = importlib.import_module("composer.authoring")
    core = {m: list(names) for m, names in reference.about.items() if names}
    for title, names in all_of({**core, "composer.authoring": authoring.__all__}):
        reference.add(title, names)
    for title, names in by_folder(of_package("composer_plugins")):
        reference.add(title, names)
    reference.pages["composer_plugins.load_backend"] = backends()
    for package in ("composer_lab", "composer_studio"):
        for title, names in all_of(of_package(package)):
            reference.add(title, names)
    pages = {**reference.pages, "index": reference.index()}
    write_folder(Path(app.srcdir) / FOLDER, {f"{name}.rst": text for name, text in pages.items()})


def without_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, None] | None:
    """Show no arguments of a protocol, which nobody calls."""
    return ("", None) if what == "class" and getattr(obj, "_is_protocol", False) else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("autodoc-process-signature", without_signature)
    return {"parallel_read_safe": True}
