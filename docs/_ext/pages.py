"""Pages that the build writes."""

from collections.abc import Mapping
from pathlib import Path


def heading(title: str, line: str) -> str:
    """A title in reStructuredText, underlined."""
    return f"{title}\n{line * len(title)}\n\n"


def write_folder(folder: Path, pages: Mapping[str, str]) -> None:
    """Make a folder hold these pages and no other; unchanged pages keep their times."""
    folder.mkdir(exist_ok=True)
    for old in set(folder.iterdir()) - {folder / name for name in pages}:
        old.unlink()
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
