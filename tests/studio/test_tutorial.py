"""Every command of the tutorial runs, in order, on the files that it shows."""

import re
import shlex
from pathlib import Path

from studio_commands import COMMANDS

PAGE = (Path(__file__).parents[2] / "docs" / "studio.md").read_text()
BLOCK = re.compile(r"^```(sh|toml|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_tutorial_runs(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    for kind, text in BLOCK.findall(PAGE):
        if kind == "python":
            exec(compile(text, "studio.md", "exec"), {})
        elif kind == "toml":
            Path(text.split()[1]).write_text(text)
        else:
            lines += (found := text.strip().splitlines())
            for line in found:
                program, name, *arguments = shlex.split(line)
                done = studio(name, *arguments)
                assert program == "composer"
                assert done.exit_code == 0, (line, done.output)
    assert len(lines) == 11
    for made in ("anagram/sheet.png", "six-nine/0003-again.png", "sweep-best/sheet.png"):
        assert Path(made).is_file()
    assert len([*Path("strong").glob("0*.png")]) == 2
    assert len([*Path("sweep").glob("*.png")]) == 24


def test_the_message_of_the_tutorial_is_the_real_one(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (recipe,) = [text for kind, text in BLOCK.findall(PAGE) if kind == "toml"]
    Path("six-nine.toml").write_text(recipe.replace("scale = 4.0", "scael = 4.0"))
    said = studio("recipe", "check", "six-nine.toml").stderr.splitlines()[0]
    shown = re.search(r"^Error: six-nine.toml:\d+.*?(?=^```)", PAGE, re.DOTALL | re.MULTILINE)
    assert " ".join(shown.group().split()).split(":", 3)[3] == said.split(":", 3)[3]
    line = int(said.split(":")[2])
    assert Path("six-nine.toml").read_text().splitlines()[line - 1] == "scael = 4.0"
    assert f"six-nine.toml:{line}:" in shown.group()


def test_every_option_of_the_table_is_one_of_sample():
    options = {option for p in COMMANDS["sample"].params for option in p.opts}
    table = re.findall(r"^\| `(--\w+)", PAGE, re.MULTILINE)
    assert len(table) == 7
    assert {*table} <= options
