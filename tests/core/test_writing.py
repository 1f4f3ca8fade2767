"""Files that are written whole or not at all, and what is said where they cannot be."""

import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from composer.writing import (
    make_folder,
    require_writable,
    write_atomically,
    write_folder,
)


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
        (RuntimeError("PytorchStreamWriter failed writing file data/1"), "disk may be full"),
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


def test_leftovers_that_cannot_be_removed_are_left(tmp_path):
    """A folder of such a name, and a name that is a pattern."""
    odd = tmp_path / "x[1]**.json"
    folder = tmp_path / f".{odd.name}.11"
    folder.mkdir()
    os.utime(folder, (0, 0))
    write_atomically(odd, lambda path: path.write_text("whole"))
    assert odd.read_text() == "whole"


def test_an_error_that_is_not_of_the_disk_is_not_called_so(tmp_path):
    def fail(path):
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="^CUDA error"):
        write_atomically(tmp_path / "file", fail)
    with pytest.raises(RuntimeError, match="^CUDA error"):
        write_folder(tmp_path / "folder", fail)


def test_the_files_of_a_folder_are_written_all_or_none(tmp_path):
    def written(text, then=None):
        def write(place):
            (place / "part").mkdir()
            for name in ("a", "part/b"):
                (place / name).write_text(text)
            if then is not None:
                raise then

        return write

    folder = tmp_path / "folder"
    write_folder(folder, written("first"))
    with pytest.raises(OSError, match="folder could not be written .No space left on device."):
        write_folder(folder, written("second", OSError(28, "No space left on device")))
    assert (folder / "a").read_text() == (folder / "part" / "b").read_text() == "first"
    assert [*tmp_path.iterdir()] == [folder]


def test_a_place_that_takes_no_writing_is_found_first(tmp_path, monkeypatch):
    def full(**options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OSError, match="file could not be written .Read-only file system."):
        require_writable(tmp_path / "new" / "file")


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    weights = {"w": torch.zeros(2)}
    write_atomically(tmp_path / "a", lambda path: save_file(weights, path))
    write_folder(tmp_path / "b", lambda place: save_file(weights, place / "c"))
    for file in (tmp_path / "a", tmp_path / "b" / "c"):
        assert file.stat().st_mode == plain.stat().st_mode
