"""What is imported when: what takes long to import waits until something needs it."""

import subprocess
import sys

import pytest

STANDARD = {*sys.stdlib_module_names, "cython_runtime"}


def packages_after(statement: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after a statement, Python's own left out."""
    program = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = [sys.executable, "-c", program]
    ran = subprocess.run(run, check=True, capture_output=True, text=True)
    names = set(ran.stdout.splitlines()[-1].split()) - STANDARD
    return {name for name in names if not name.startswith("_")}


@pytest.fixture(scope="module")
def needed():
    """What the loop is made of, and what these bring."""
    return packages_after("import torch, numpy, pluggy")


@pytest.mark.parametrize(
    ("statement", "added"),
    [
        ("import composer, composer.authoring", {"composer"}),
        (
            "import composer_plugins; from composer import installed; assert installed().offers",
            {"composer", "composer_plugins", "composer_studio", "safetensors"},
        ),
        (
            "from composer.cli import main; main(['--help'], 'composer', standalone_mode=False)",
            {
                "PIL",
                "click",
                "composer",
                "composer_lab",
                "composer_plugins",
                "composer_studio",
                "filelock",
                "safetensors",
            },
        ),
    ],
    ids=["composer", "composer_plugins", "composer --help"],
)
def test_an_import_loads_these_packages_and_no_other(statement, added, needed):
    assert packages_after(statement) - needed == added
