"""The wheel and the sdist: whole, small, and enough to make a picture in a new environment."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from fresh_environment import fresh_environment, wheels

import composer
from composer_studio.remembered import read_memory

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SMALL = 30e6
"""Bytes of each file."""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel that pip builds from the sdist, as for a machine without the checkout."""
    (built,) = wheels(tmp_path_factory.mktemp("wheel"), sdist)
    return built


def files_of(place, package):
    """The files that git has of a package, weights included."""
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", package]
    listed = subprocess.run(tracked, cwd=place, check=True, capture_output=True, text=True)
    return {str(Path(line)) for line in listed.stdout.splitlines()}


def test_both_are_small_and_of_this_version(sdist, wheel):
    for file in (sdist, wheel):
        assert file.stat().st_size < SMALL, file.name
        assert file.name.startswith(f"diffusion_composer-{composer.__version__}"), file.name
    assert PROJECT["version"] == composer.__version__


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git lists the files")
def test_they_hold_every_file_of_the_packages(sdist, wheel):
    packages = {"composer": ROOT}
    packages |= {p.parent.name: ROOT / "plugins" for p in ROOT.glob("plugins/*/__init__.py")}
    expected = {f for name, place in packages.items() for f in files_of(place, name)}
    expected.add("composer_command.py")
    with zipfile.ZipFile(wheel) as opened:
        assert {n for n in opened.namelist() if ".dist-info/" not in n} == expected
    with tarfile.open(sdist) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    of_sdist = {f if (ROOT / f).exists() else f"plugins/{f}" for f in expected}
    assert of_sdist <= held
    assert {"README.md", "Makefile", "tests/conftest.py", "docs/index.md"} <= held


def test_a_new_environment_makes_a_picture(wheel, tmp_path):
    fresh = fresh_environment(tmp_path / "new", [wheel])
    assert "composer anagram 6 9" in fresh.run("composer", "--help").stdout
    fresh.run("composer", "anagram", 6, 9, "--seeds", "0", "--steps", 2, "--out", "made")
    assert read_memory(fresh.home / "made" / "0000.png").version == composer.__version__


def test_the_extras_are_there():
    extras = PROJECT["optional-dependencies"]
    promised = {"web", "ray", "latent", "deepfloyd", "prx", "train", "testing", "video", "docs"}
    assert promised | {"dev"} == extras.keys()
    named = {name: {d.partition(">=")[0] for d in needs} for name, needs in extras.items()}
    assert set().union(*named.values()) == named["dev"] | {"diffusers"}


def test_lowest_states_each_lower_bound():
    """lowest.txt pins what pyproject.toml allows at least; two bounds of one name: the higher."""
    needs = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    bounds = dict(need.split(">=") for need in needs)
    lines = (ROOT / "lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert bounds.keys() == pins.keys()
    for name, bound in bounds.items():
        assert re.match(rf"{re.escape(bound)}(\.|$)", pins[name]), (name, bound, pins[name])


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == composer.__version__
    date = re.search(r'^date-released: "(.*)"$', citation, re.M)[1]
    assert f"## {composer.__version__} ({date})" in (ROOT / "CHANGELOG.md").read_text()
