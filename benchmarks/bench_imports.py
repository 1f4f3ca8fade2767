"""What the first line of a program costs, beside ``import torch``: ``bench.py --only imports``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

BAR = 1.15
STATEMENTS = {
    "import torch": "import torch",
    "import composer": "import composer",
    "import composer_plugins": "import composer_plugins",
    "composer --help": "from composer.cli import main; main(['--help'])",
}


def processor_seconds(statement: str) -> float:
    """User and system time of a fresh interpreter that runs a statement."""
    # As installed: whoever forbids .pyc files has our modules compiled each time, torch's not.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen(
        [sys.executable, "-c", statement], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{statement!r} failed with exit status {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def imports(repeats: int) -> None:
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for statement in STATEMENTS.values():
        processor_seconds(statement)  # writes what is compiled
    for _ in range(repeats):
        for name, statement in STATEMENTS.items():
            taken[name].append(processor_seconds(statement))
    base, *others = STATEMENTS
    print(f"(i) processor time of imports, {repeats} fresh processes each, taking turns")
    print(f"    {base:26} {statistics.median(taken[base]):.2f} s")
    for name in others:
        ratio = statistics.median(a / b for a, b in zip(taken[name], taken[base], strict=True))
        bar = f"   (at most {BAR})" if name.startswith("import") else "   (no bar)"
        print(f"    {name:26} {statistics.median(taken[name]):.2f} s, {ratio:.3f} times{bar}")
