"""The program ``composer``, which imports nothing heavy before it can answer Ctrl-C.

It stands outside of the package because ``import composer`` loads torch, which takes a second.
"""

from __future__ import annotations

import sys

STOPPED = 130


def main() -> None:
    """Run the command line; end with exit code 130 if Ctrl-C comes while it loads."""
    try:
        from composer.cli import main as command  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    command()
