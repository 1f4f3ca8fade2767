"""Every example runs, writes one picture, and is short."""

import importlib
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem != "gallery")


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_writes_its_picture(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    file = importlib.import_module(name).main(tmp_path, seeds=2, steps=6)
    assert file.parent == tmp_path
    with Image.open(file) as picture:
        assert picture.width > 50
        assert len(picture.convert("L").getcolors()) > 2
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 60


def test_the_gallery_makes_them_all(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    gallery = importlib.import_module("gallery")
    called = []
    for name in SCRIPTS:
        module = sys.modules.get(name) or importlib.import_module(name)
        monkeypatch.setattr(
            module, "main", lambda out, name=name: called.append(name) or out / name
        )
    gallery.main(tmp_path / "new")
    assert sorted(called) == SCRIPTS
    assert str(tmp_path / "new") in capsys.readouterr().out
