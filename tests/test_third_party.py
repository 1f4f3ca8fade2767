"""Other people's packages, from their wheels, in an environment of their own; all offline."""

import json
from pathlib import Path

import pytest
from fresh_environment import fresh_environment, wheels

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "examples" / "third_party"
BROKEN = ROOT / "tests" / "third_party_broken"
ERROR = "RuntimeError: made against another version"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    built = wheels(tmp_path_factory.mktemp("wheels"), ROOT, PACKAGE, BROKEN)
    return fresh_environment(tmp_path_factory.mktemp("fresh"), built)


SCRIPT = """
import json
from importlib.metadata import entry_points

import composer, composer_mirrors, composer_plugins
from composer_mirrors import Diagonal, FadingGuidance
from composer_plugins import Anagram

stack = [Anagram({"identity": 6, Diagonal(): 9}), FadingGuidance(3.0)]
backend = composer.load_backend("mnist")
result = composer.Sampler(backend, stack, num_inference_steps=2).sample(seeds=[5])
recipe = json.loads(json.dumps(result.recipe))
again = composer.Sampler.from_recipe(recipe).sample(**composer.call_of(recipe))
print(json.dumps({
    "files": [m.__file__ for m in (composer, composer_plugins, composer_mirrors)],
    "entries": sorted((e.name, e.dist.name) for e in entry_points(group="composer")),
    "plugins": recipe["plugins"],
    "same": again.x.equal(result.x),
}))
"""


def test_the_wheels_work_together_and_a_recipe_names_the_packages_plugin_and_view(fresh):
    found = json.loads(fresh.run("python", "-c", SCRIPT).stdout)
    # Each from its wheel, each entry point once: none from the checkout.
    assert all(Path(file).is_relative_to(fresh.home) for file in found["files"]), found["files"]
    assert found["entries"] == [
        ["broken", "composer-broken"],
        ["builtin", "diffusion-composer"],
        ["mirrors", "composer-mirrors"],
        ["studio", "diffusion-composer"],
    ]
    anagram, guidance = found["plugins"]
    assert found["same"]
    assert guidance == {"plugin": "fading_guidance", "options": {"scale": 3.0}}
    view = {"transform": "diagonal", "options": {}}
    assert anagram["options"]["views"]["pairs"][1] == [view, 9]


def test_plugins_lists_names_and_the_package_that_broke(fresh):
    listed = json.loads(fresh.run("composer", "plugins", "--json").stdout)
    offers = {(row["kind"], row["name"]): row for row in listed["offers"]}
    assert len(offers) == len(listed["offers"])
    assert offers["transform", "diagonal"] == {
        "name": "diagonal",
        "kind": "transform",
        "distribution": "composer-mirrors",
        "version": "1.2",
        "description": "Mirrored about the diagonal; square images.",
        "hooks": [],
    }
    assert offers["plugin", "fading_guidance"]["hooks"] == ["noise_estimate"]
    assert offers["plugin", "cfg"]["distribution"] == "diffusion-composer"
    broken = {"entry_point": "broken", "distribution": "composer-broken", "version": "0.3"}
    assert listed["failed"] == [{**broken, "error": ERROR}]


def test_help_lists_commands_that_fail_and_that_leave(fresh):
    lines = [line.split() for line in fresh.run("composer", "--help").stdout.splitlines()]
    for name in ("broken", "leaving"):
        assert [name, "composer-broken", "failed", "to", "load:"] in [line[:5] for line in lines]


def test_check_proves_the_package(fresh):
    done = fresh.run("composer", "check", "composer-mirrors")
    assert done.stdout.rstrip().endswith("0 failed, 0 skipped, of diagonal, fading_guidance")


def test_the_packages_own_tests_pass(fresh):
    tests = PACKAGE / "tests"
    done = fresh.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert "passed" in done.stdout
    assert "failed" not in done.stdout


def test_it_is_as_short_as_it_says():
    """Sixty lines of code, give or take; the rest is blank or a docstring."""
    files = [PACKAGE / "composer_mirrors.py", PACKAGE / "tests" / "test_mirrors.py"]
    lines = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= 60
