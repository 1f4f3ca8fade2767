"""Files that are written whole or not at all, and what is said where they cannot be."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from composer.writing import (
    make_folder,
    remove_left_over,
    require_writable,
    write_atomically,
    write_folder,
)

GONE = 2**22 + 1
"""No process has this number: Linux gives none above 2**22."""


def unfinished(name, pid, old=False, folder=False):
    """What a process of this number writes, or wrote, of a file of this name."""
    place = name.with_name(f".{pid}-0123abcd.{name.name}")
    place.mkdir() if folder else place.write_text("half")
    if folder:
        (place / "part").write_text("half")
    if old:
        os.utime(place, (0, 0))
    return place


def test_what_is_being_written_has_a_name_that_says_whose_it_is(tmp_path):
    """And the suffix, by which libraries choose the format."""
    names = []
    write_atomically(tmp_path / "a.gif", lambda p: names.append(p.name) or p.write_text("x"))
    write_folder(tmp_path / "b", lambda p: names.append(p.name) or (p / "c").write_text("x"))
    assert all(name.startswith(f".{os.getpid()}-") for name in names)
    assert [name.split(".", 2)[2] for name in names] == ["a.gif", "b"]
    assert len(set(names)) == 2


def test_what_a_killed_writer_left_is_removed_in_time(tmp_path):
    """An hour later if it is gone, never while it lives, whoever else's file it is not."""
    file = tmp_path / "file.txt"
    kept = [
        unfinished(file, GONE),
        unfinished(file, os.getppid(), old=True),
        unfinished(tmp_path / "other.txt", GONE, old=True),
        unfinished(tmp_path / "2-0123abcd.file.txt", GONE, old=True),
    ]
    odd = tmp_path / f".{GONE}-xyz.file.txt"
    before = tmp_path / f".file.txt.{GONE}"  # as earlier versions called it
    for place in (odd, before):
        place.write_text("half")
        os.utime(place, (0, 0))
    swept = [unfinished(file, GONE + 1, old=True), before]
    swept.append(unfinished(file, GONE + 2, old=True, folder=True))
    write_atomically(file, lambda path: path.write_text("whole"))
    assert {*tmp_path.iterdir()} == {*kept, odd, file}
    assert not any(place.exists() for place in swept)


def test_under_a_lock_all_that_was_left_is_removed_but_a_living_writers(tmp_path):
    """This process has just begun: what has its number is of one that is gone."""
    (tmp_path / ".lock").touch()
    unfinished(tmp_path / "checkpoint.pt", GONE)
    unfinished(tmp_path / "log.json", os.getpid())
    unfinished(tmp_path / "model", GONE, folder=True)
    lives = unfinished(tmp_path / "log.json", os.getppid(), old=True)
    remove_left_over(tmp_path)
    assert {*tmp_path.iterdir()} == {lives, tmp_path / ".lock"}
    remove_left_over(tmp_path / "none")


@pytest.mark.parametrize(
    ("error", "lives"), [(PermissionError, True), (ProcessLookupError, False), (None, True)]
)
def test_a_process_that_may_not_be_asked_lives(tmp_path, monkeypatch, error, lives):
    def kill(pid, signal):
        assert signal == 0
        if error:
            raise error

    place = unfinished(tmp_path / "a", 7)
    monkeypatch.setattr(os, "kill", kill)
    remove_left_over(tmp_path)
    assert place.exists() is lives


def test_threads_write_one_file_without_disturbing_each_other(tmp_path):
    """The last to finish wins, and the file is whole."""
    texts = [str(n) * 1000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(write_atomically, tmp_path / "a", lambda p, t=text: p.write_text(t))
            for text in texts
        ]
    assert [job.result() for job in jobs] == [None] * 8
    assert (tmp_path / "a").read_text() in texts
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


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

    with pytest.raises(OSError, match=rf"file could not be written .*{words}.* Free some space"):
        write_atomically(tmp_path / "file", full)
    assert not [*tmp_path.iterdir()]


def test_what_is_in_the_way_is_named(tmp_path):
    with pytest.raises(OSError, match="is a folder. Name a file"):
        write_atomically(tmp_path, lambda path: path.write_text("x"))
    (tmp_path / "taken").touch()
    with pytest.raises(OSError, match="cannot be a folder .*. Name another place"):
        make_folder(tmp_path / "taken" / "below")


def test_leftovers_that_cannot_be_removed_are_left(tmp_path, monkeypatch):
    """And a name may be a pattern."""
    odd = tmp_path / "x[1]**.json"
    place = unfinished(odd, GONE, old=True)

    def forbidden(self, missing_ok=False):
        if self == place:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", forbidden)
    write_atomically(odd, lambda path: path.write_text("whole"))
    assert odd.read_text() == "whole"
    monkeypatch.undo()
    write_atomically(odd, lambda path: path.write_text("more"))
    assert [*tmp_path.iterdir()] == [odd]


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


def test_a_file_of_a_folder_that_cannot_be_moved_is_said_in_a_sentence(tmp_path, monkeypatch):
    def write(place):
        for name in ("a", "b"):
            (place / name).write_text("new")

    folder = tmp_path / "folder"
    write_folder(folder, lambda place: (place / "a").write_text("old"))
    (folder / "b").mkdir()
    with pytest.raises(OSError, match="folder/b is a folder. Name a file"):
        write_folder(folder, write)
    assert (folder / "a").read_text() == "old"  # found before any is moved
    (folder / "b").rmdir()

    def full(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr(Path, "replace", full)
        with pytest.raises(
            OSError, match="folder/a could not be written .No space left on dev.* Free"
        ):
            write_folder(folder, write)
    assert [*tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize("write", [write_atomically, write_folder])
def test_an_interrupted_writer_leaves_nothing(tmp_path, write):
    def interrupted(place):
        if place.is_dir():
            (place / "a").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "x", interrupted)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() or p.name.startswith(".")]


def test_a_place_that_takes_no_writing_is_found_first(tmp_path, monkeypatch):
    def full(self, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(OSError, match="file could not be written .Read-only file system."):
        require_writable(tmp_path / "new" / "file")
    monkeypatch.undo()
    require_writable(tmp_path / "new" / "file")
    assert not [*(tmp_path / "new").iterdir()]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    weights = {"w": torch.zeros(2)}
    write_atomically(tmp_path / "a", lambda path: save_file(weights, path))
    write_folder(tmp_path / "b", lambda place: save_file(weights, place / "c"))
    for file in (tmp_path / "a", tmp_path / "b" / "c"):
        assert file.stat().st_mode == plain.stat().st_mode
