"""``make docs`` builds a site without a warning, and it is whole (17 s of one core)."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from composer.cli import main

pytest.importorskip("furo")
pytest.importorskip("myst_parser")
from sphinx.util.inventory import InventoryFile

DOCS = Path(__file__).parent.parent / "docs"
PACKAGES = ("composer.authoring", "composer_plugins", "composer_plugins.transforms")
PACKAGES += ("composer_lab.figures", "composer_studio", "composer_studio.written")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as by ``make docs``."""
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "--keep-going", "-d", folder / "doctrees"]
    build = [sys.executable, "-m", "sphinx", *options, DOCS, folder / "html"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(build, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


def test_every_link_leads_to_a_page_and_an_anchor(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 60
    dead = []
    for path, page in pages.items():
        for link in map(urlparse, page.links):
            if link.scheme or link.netloc:
                continue
            goal = (path.parent / unquote(link.path)).resolve() if link.path else path
            anchored = not link.fragment or goal not in pages
            if not goal.exists() or not (anchored or link.fragment in pages[goal].anchors):
                dead.append(f"{path.relative_to(site)}: {link.geturl()}")
    assert not dead


def listed():
    """(module, name) of the tables of docs/reference.md and of other packages' ``__all__``."""
    for line in (DOCS / "reference.md").read_text().splitlines():
        if title := re.fullmatch(r"### `([\w.]+)`", line):
            module = title[1]
        elif row := re.match(r"\| `(\w+)` \|", line):
            yield module, row[1]
    for module in PACKAGES:
        yield from ((module, name) for name in importlib.import_module(module).__all__)


def test_every_public_name_is_described(site):
    """Under the name of some module from which to import it."""
    with (site / "objects.inv").open("rb") as opened:
        inventory = InventoryFile.load(opened, "", lambda base, uri: uri)
    kinds = ("py:class", "py:exception", "py:function", "py:data")
    described = {name.rpartition(".")[2] for kind in kinds for name in inventory[kind]}
    names = list(listed())
    assert len(names) > 250
    assert [f"{module}.{name}" for module, name in names if name not in described] == []


def test_every_command_has_its_page_and_every_option_its_row(site):
    for name in main.list_commands(None):
        page = (site / "commands" / f"{name}.html").read_text()
        assert f"<h1>composer {name}<" in page
        for parameter in main.get_command(None, name).params:
            long = [option for option in parameter.opts if option.startswith("--")]
            assert all(re.search(rf">{option}\b", page) for option in long), (name, long)
