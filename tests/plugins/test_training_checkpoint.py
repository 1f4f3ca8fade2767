"""Checkpoints: what a full disk leaves, and which run may resume one."""

import contextlib
import resource

import pytest
import torch
from test_training import trainer

from composer_plugins.training_checkpoint import read_checkpoint, write_checkpoint


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
    with pytest.raises(OSError, match=r"checkpoint\.pt could not be written at step 6 .*make room"):
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
    write_checkpoint(file, {"identity": {"epochs": 2}, "step": 7})
    state = read_checkpoint(file, {"epochs": 2, "lr_schedule": "one-cycle"}, cpu)
    assert state["step"] == 7
    with pytest.raises(ValueError, match="another run, which differs in conditioning, lr_schedule"):
        read_checkpoint(file, {"epochs": 2, "lr_schedule": "constant", "conditioning": "add"}, cpu)
    assert read_checkpoint(tmp_path / "nothing", {}, cpu) is None


def test_what_else_tells_runs_apart_is_compared(tmp_path):
    one = trainer(tmp_path)
    one.about = {"objective": "ddpm"}
    one.run(progress=False)
    other = trainer(tmp_path)
    other.about = {"objective": "ddpm-300"}
    with pytest.raises(ValueError, match="another run, which differs in objective"):
        other.run(progress=False)
