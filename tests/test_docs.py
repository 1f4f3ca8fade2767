"""Every Python block of the README and the documentation runs, in order, page by page."""

import re
from pathlib import Path

import pytest

from composer.plugin import HOOKS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.S | re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_page_runs(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if page.name == "deepfloyd.md":  # a folder of a model's name goes before the hub
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        folders = {
            "DeepFloyd/IF-I-XL-v1.0": request.getfixturevalue("tiny_if")[1],
            "DeepFloyd/IF-II-L-v1.0": request.getfixturevalue("tiny_if")[2],
            "stabilityai/stable-diffusion-x4-upscaler": request.getfixturevalue("tiny_upscaler"),
        }
        for name, folder in folders.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).symlink_to(folder)
    if page.name == "latent-models.md":
        _, folder = request.getfixturevalue("tiny_latent")("sdxl")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (tmp_path / "stabilityai").mkdir()
        (tmp_path / "stabilityai" / "stable-diffusion-xl-base-1.0").symlink_to(folder)
    if page.name == "prx.md":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        tiny_prx = pytest.importorskip("tiny_prx", exc_type=ImportError)
        tiny_prx.build(tmp_path / "Photoroom" / "prxpixel-t2i")
    namespace = {"__name__": "page"}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name} block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_every_hook_has_its_heading():
    page = (ROOT / "docs" / "hooks.md").read_text()
    headings = set(re.findall(r"^## `(\w+)\(", page, flags=re.M))
    assert headings == HOOKS | {"register_plugins"}
