"""The program ``composer`` while it loads."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import composer.cli
import composer_command

ROOT = Path(__file__).parents[2]
SLOW_TORCH = """
import time
print("loading", flush=True)
for _ in range(600):  # a signal just before one long sleep would wait for its end
    time.sleep(0.1)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child")
def test_ctrl_c_while_torch_loads_prints_nothing(tmp_path):
    (tmp_path / "torch.py").write_text(SLOW_TORCH)
    places = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "plugins")))
    child = subprocess.Popen(
        [sys.executable, "-c", "import composer_command; composer_command.main()", "plugins"],
        env={**os.environ, "PYTHONPATH": places},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "loading\n"
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=60)
    assert (*said, child.returncode) == ("", "", 130)


def test_the_program_is_the_command_line(monkeypatch):
    called = []
    monkeypatch.setattr(composer.cli, "main", lambda: called.append("main"))
    composer_command.main()
    assert called == ["main"]
