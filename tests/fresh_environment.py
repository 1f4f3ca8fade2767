"""A new environment with wheels of its own, the rest borrowed from the running one; offline."""

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import torch

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-deps", "--no-index"]
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COMPOSER"))}
"""Without the paths of the running environment."""


@dataclass(frozen=True)
class Fresh:
    """The folder of the environment."""

    home: Path

    def run(self, program, *arguments):
        done = subprocess.run(
            [self.home / "bin" / program, *map(str, arguments)],
            cwd=self.home,  # not the checkout, whose folders would be imported
            env={**CLEAN, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def wheels(folder, *sources):
    """Build the wheels of checkouts or sdists into a folder."""
    build = [*PIP, "wheel", "--no-build-isolation", *OFFLINE, "-w", folder, *sources]
    subprocess.run(build, check=True, env=CLEAN)
    return sorted(folder.glob("*.whl"))


def fresh_environment(home, files):
    """Make an environment in a folder and install wheels into it."""
    venv.create(home, with_pip=False, symlinks=True)
    install = [*PIP, "--python", home / "bin" / "python", "install", *OFFLINE, *files]
    subprocess.run(install, check=True, env=CLEAN)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    # A line here adds a folder behind the environment's own, and does not read that folder's .pth
    # files: torch is found there, the editable install of the library is not.
    borrowed = {str(Path(torch.__file__).parent.parent), sysconfig.get_path("purelib")}
    (own / "borrowed.pth").write_text("\n".join(borrowed))
    return Fresh(home)
