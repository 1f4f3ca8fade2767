"""Show READMEs and other pages of the repository in the site, and lead links to them there."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from pages import write_folder
from sphinx.application import Sphinx

FOLDER = "outside"
SHOWN = {
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "examples/deepfloyd/README.md": "deepfloyd-examples",
    "examples/recipes/README.md": "recipes-to-copy",
    "examples/third_party/README.md": "third-party",
    "examples/notebooks/README.md": "notebooks",
}
"""{file of the repository: its page}"""
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def moved(text: str, source: str, page: str) -> str:
    """A page's text with its relative links as they must be at another place.

    Args:
        source: the file, relative to the repository.
        page: where the site has it, relative to the repository.
    """

    def target(link: re.Match[str]) -> str:
        goal = os.path.normpath(PurePosixPath(source).parent / link[1])
        goal = f"docs/{FOLDER}/{SHOWN[goal]}.md" if goal in SHOWN else goal
        return os.path.relpath(goal, PurePosixPath(page).parent)

    return LINK.sub(target, text)


def write(app: Sphinx) -> None:
    """Write the folder ``outside``, before Sphinx looks for pages."""
    root = Path(app.srcdir).parent
    pages = {
        f"{name}.md": moved((root / file).read_text(), file, f"docs/{FOLDER}/{name}.md")
        for file, name in SHOWN.items()
    }
    write_folder(Path(app.srcdir) / FOLDER, pages)


def lead_inside(app: Sphinx, name: str, source: list[str]) -> None:
    """Let the links of the documentation's own pages lead to pages of the site."""
    if "/" not in name:
        source[0] = moved(source[0], f"docs/{name}.md", f"docs/{name}.md")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("source-read", lead_inside)
    return {"parallel_read_safe": True}
