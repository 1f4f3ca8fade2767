"""Checkpoints: what a full disk leaves, and which run may resume one."""

import contextlib
import resource

import pytest
import torch
from test_training import trainer

from composer_lab.training.checkpoint import read_checkpoint, sole_writer, write_checkpoint


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 20 kB; a checkpoint of width 4 has 200."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_checkpoint_before_and_the_run_goes_on_from_it(tmp_path):
    whole = trainer(tmp_path / "whole").run(progress=False)
    broken = trainer(tmp_path / "broken")
    save = broken._save

    def save_while_there_is_room():
        with full_disk() if broken.step == 6 else contextlib.nullcontext():
            save()

    broken._save = save_while_there_is_room
    with pytest.raises(
        OSError, match=r"checkpoint\.pt could not be written .*Free some space.* step 6"
    ):
        broken.run(progress=False)
    assert {path.name for path in broken.folder.iterdir()} == {"checkpoint.pt", "log.json"}
    again = trainer(tmp_path / "broken")
    again._resume()
    assert again.step == 3
    resumed = again.run(progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_an_older_checkpoint_had_the_defaults_of_settings_it_does_not_know(tmp_path):
    file, cpu = tmp_path / "checkpoint.pt", torch.device("cpu")
    write_checkpoint(file, {"identity": {"epochs": 2}, "step": 2, "losses": [1.0, 0.5]})
    state = read_checkpoint(file, {"epochs": 2, "lr_schedule": "one-cycle"}, cpu)
    assert state["step"] == 2
    with pytest.raises(ValueError, match=r"conditioning \(None there, add here\), lr_sch"):
        read_checkpoint(file, {"epochs": 2, "lr_schedule": "constant", "conditioning": "add"}, cpu)
    assert read_checkpoint(tmp_path / "nothing", {}, cpu) is None


def test_what_else_tells_runs_apart_is_compared(tmp_path):
    one = trainer(tmp_path)
    one.about = {"objective": "ddpm"}
    one.run(progress=False)
    other = trainer(tmp_path)
    other.about = {"objective": "ddpm-300"}
    with pytest.raises(ValueError, match="other settings: objective"):
        other.run(progress=False)


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    trainer(tmp_path).run(progress=False)
    full = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    for error in (PermissionError(13, "Permission denied"), OSError("torn"), MemoryError(), full):

        def failing(*arguments, error=error, **options):
            raise error

        with monkeypatch.context() as changed:
            changed.setattr(torch, "load", failing)
            with pytest.raises(
                OSError, match="checkpoint.pt cannot be read .*Correct that and resume"
            ):
                trainer(tmp_path)._resume()
    (tmp_path / "folder" / "checkpoint.pt").mkdir(parents=True)
    with pytest.raises(OSError, match="cannot be read .Is a directory."):
        trainer(tmp_path / "folder")._resume()


def test_a_flipped_byte_is_noticed(tmp_path):
    """By the checksum of the file it is in: torch reads such files without a word."""
    trainer(tmp_path).run(progress=False)
    file = tmp_path / "checkpoint.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="must be an intact checkpoint. Move it away"):
        trainer(tmp_path)._resume()


@pytest.mark.parametrize(
    "content",
    [
        {"identity": {}, "losses": []},
        {"identity": {}, "step": "a", "losses": []},
        {"identity": {}, "step": 9, "losses": [1.0]},
        [1, 2],
    ],
)
def test_a_file_of_something_else_is_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="must be an intact checkpoint"):
        read_checkpoint(tmp_path / "checkpoint.pt", {}, torch.device("cpu"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_diverged_take_the_place_of_no_good_ones(tmp_path, value):
    """Also where the loss, which is that of before the update, is still a number."""
    run, written = trainer(tmp_path, snapshots=(1, 2)), []
    update = run._update

    def spoiling(batch):
        loss = update(batch)
        if run.step == 5:
            with torch.no_grad():
                run.model.out.bias.fill_(value)
        return loss

    run._update = spoiling
    with pytest.raises(ArithmeticError, match="a weight became NaN or Inf by step 6. Lower the"):
        run.run(progress=False, write=lambda network, folder: written.append(folder.name))
    assert written == ["epoch-001"]
    again = trainer(tmp_path, snapshots=(1, 2))
    again._resume()
    assert again.step == 3
    assert torch.isfinite(again.model.out.bias).all()


def test_two_trainings_do_not_write_one_folder(tmp_path):
    second = sole_writer(tmp_path)
    with sole_writer(tmp_path), pytest.raises(ValueError, match="another training writes to"):
        second.__enter__()
    with sole_writer(tmp_path):
        pass


def test_a_full_disk_at_the_first_checkpoint_promises_none(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="start the same command again, which begins$"):
        write_checkpoint(tmp_path / "checkpoint.pt", {"step": 3})
