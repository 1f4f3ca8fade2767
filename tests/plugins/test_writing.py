"""Files that are written whole or not at all, and what is said where they cannot be."""

import os

import pytest
from safetensors import SafetensorError

from composer_plugins.writing import make_folder, write_atomically


def test_what_a_killed_writer_left_is_removed_in_time(tmp_path):
    old, new, other = (tmp_path / f".file.{end}" for end in ("11", "12", "txt"))
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (0, 0))
    write_atomically(tmp_path / "file", lambda path: path.write_text("whole"))
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".file.12", ".file.txt"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SafetensorError("Error while serializing: No space left"), "while serializing: No space"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . x\nmore"), "disk may be full"),
        (OSError(28, "No space left on device", "/tmp/.file.3"), r"\(No space left on device\)"),
    ],
)
def test_whatever_a_library_raises_of_a_full_disk_is_a_sentence(tmp_path, error, words):
    def full(path):
        path.write_text("ha")
        raise error

    with pytest.raises(OSError, match=rf"file could not be written .*{words}.*; make room"):
        write_atomically(tmp_path / "file", full)
    assert not [*tmp_path.iterdir()]


def test_what_is_in_the_way_is_named(tmp_path):
    with pytest.raises(OSError, match="is a folder; name a file"):
        write_atomically(tmp_path, lambda path: path.write_text("x"))
    (tmp_path / "taken").touch()
    with pytest.raises(OSError, match="cannot be a folder .*; name another place"):
        make_folder(tmp_path / "taken" / "below")
