"""What the tests of the studio share."""

import pytest
from click.testing import CliRunner

from composer_studio.cli import pictures, rank, recipe, sample, short, sweep

COMMANDS = {
    "anagram": short.anagram,
    "hybrid": short.hybrid,
    "inpaint": short.inpaint,
    "rank": rank.rank,
    "recipe": recipe.recipe,
    "replay": pictures.replay,
    "sample": sample.sample,
    "sdedit": short.sdedit,
    "show": pictures.show,
    "sweep": sweep.sweep,
}
TEXT = """
backend = "mnist"
steps = 3
seeds = "0:5"
[plugins.anagram]
views = { identity = 6, rotate_180 = 9 }
[plugins.cfg]
scale = 4.0
"""


@pytest.fixture
def run():
    """Runs a command of the studio."""

    def invoke(name, *arguments):
        return CliRunner().invoke(COMMANDS[name], [str(one) for one in arguments])

    return invoke


@pytest.fixture
def file(tmp_path):
    """A recipe of three steps."""
    written = tmp_path / "six-nine.toml"
    written.write_text(TEXT)
    return written
