"""Trainings that are killed or interrupted: what they leave, and what a resumed one makes of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from test_training import trainer
from test_training_processes import trainer as tiny_trainer


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("die_at", "settings"),
    [
        (1, {}),
        (3, {"lr_schedule": "exponential", "ema_decay": 0.0}),
        (5, {"lr_schedule": "constant", "adam_betas": (0.9, 0.999)}),
        (7, {"snapshots": (1, 2)}),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, die_at, settings):
    whole = trainer(tmp_path / "whole", **settings)
    expected = whole.run(progress=False)
    broken = trainer(tmp_path / "broken", **settings)
    update = broken._update

    def dying(batch):
        if broken.step == die_at:
            raise Killed
        return update(batch)

    broken._update = dying
    with pytest.raises(Killed):
        broken.run(progress=False)
    again = trainer(tmp_path / "broken", **settings)
    resumed = again.run(progress=False)
    assert again.losses == whole.losses
    for name, value in expected.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def preset(folder):
    """A course's: the learning rate falls after each epoch, nothing is averaged."""
    settings = {"lr_schedule": "exponential", "ema_decay": 0.0, "snapshots": (1, 4)}
    return trainer(folder, epochs=16, **settings)


SCRIPT = """
import sys
from pathlib import Path
import torch
from test_training_kills import preset
torch.set_num_threads(1)
preset(Path(sys.argv[1])).run(progress=False)
"""


def test_a_run_killed_for_real_resumes_to_the_same_weights(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    weights = [
        preset(tmp_path / name).run(progress=False).state_dict() for name in ("whole", "killed")
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_snapshot_that_a_kill_cut_short_is_written_again(tmp_path):
    def dying(network, folder):
        raise Killed

    with pytest.raises(Killed):
        trainer(tmp_path, snapshots=(1,)).run(progress=False, write=dying)
    written = []
    again = trainer(tmp_path, snapshots=(1,))
    again.run(progress=False, write=lambda network, folder: written.append(folder.name))
    assert written == ["epoch-001", tmp_path.name]


FILE_OPERATIONS = (
    *((Path, name) for name in ("touch", "chmod", "replace", "unlink")),
    (os, "fsync"),
    (torch, "save"),
)


def dying_at(count, monkeypatch):
    """From the operation ``count`` on, nothing reaches the disk: the process is gone."""
    calls = []

    def dying(operation):
        def wrapped(*arguments, **options):
            calls.append(operation)
            if len(calls) > count:
                raise Killed
            return operation(*arguments, **options)

        return wrapped

    for owner, name in FILE_OPERATIONS:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    return calls


def test_a_kill_at_any_file_operation_is_repaired_by_a_resumed_run(tmp_path, monkeypatch):
    """Weights, log and files are those of the run that was not killed."""

    def write(network, folder):
        torch.save(network.state_dict(), folder / "written.pt")

    def state(folder):
        log = json.loads((folder / "log.json").read_text())
        weights = torch.load(folder / "written.pt", weights_only=True)
        return {p.name for p in folder.iterdir()}, {**log, "seconds": 0}, weights

    with monkeypatch.context() as changed:
        calls = dying_at(10**6, changed)
        tiny_trainer(tmp_path / "whole").run(progress=False, write=write)
    names, log, weights = state(tmp_path / "whole")
    assert log["steps"] == len(log["loss"]) == 6
    assert len(calls) > 30
    for count in range(len(calls)):
        folder = tmp_path / str(count)
        with monkeypatch.context() as changed:
            dying_at(count, changed)
            with pytest.raises(Killed):
                tiny_trainer(folder).run(progress=False, write=write)
        tiny_trainer(folder).run(progress=False, write=write)
        found = state(folder)
        assert found[:2] == (names, log), count
        assert all(torch.equal(found[2][name], value) for name, value in weights.items()), count


def interrupted(folder, *signals, at=2):
    """A training that receives signals in its step ``at``, from 0."""
    run = tiny_trainer(folder)
    update = run._update

    def receiving(batch):
        if run.step == at:
            for number in signals:
                signal.raise_signal(number)
        return update(batch)

    run._update = receiving
    return run


def saved_step(folder):
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert len(json.loads((folder / "log.json").read_text())["loss"]) == state["step"]
    return state["step"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_saves_the_step_it_was_in(tmp_path, number):
    """Every second step is saved anyway; this is the third."""
    whole = tiny_trainer(tmp_path / "whole").run(progress=False)
    before = signal.getsignal(number)
    ends = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}[number]
    with pytest.raises(ends) as caught:
        interrupted(tmp_path / "run", number).run(progress=False)
    if number == signal.SIGTERM:
        assert caught.value.code == 143
    assert signal.getsignal(number) is before
    assert saved_step(tmp_path / "run") == 3
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "log.json"}
    again = tiny_trainer(tmp_path / "run")
    resumed = again.run(progress=False)
    assert len(again.losses) == 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_second_signal_ends_it_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, signal.SIGTERM, signal.SIGINT).run(progress=False)
    assert saved_step(tmp_path) == 2


def test_it_says_where_it_stopped(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, signal.SIGINT).run(progress=True)
    assert "stopped and saved at step 3 of 6; the same command goes on" in capsys.readouterr().out


@pytest.fixture
def handled():
    """Sets a handler of SIGTERM, and the one before again at the end."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGTERM, before)


def test_a_handler_of_ones_own_is_called_once_all_is_saved(tmp_path, handled):
    """And if it returns, the training goes on, and hears the next signal."""
    seen = []
    handled(lambda number, frame: seen.append((number, saved_step(tmp_path))))
    run = interrupted(tmp_path, signal.SIGTERM)
    run.run(progress=False)
    assert seen == [(signal.SIGTERM, 3)]
    assert run.step == 6


def test_what_is_ignored_stays_so_and_threads_hear_nothing(tmp_path, handled):
    handled(signal.SIG_IGN)
    run = interrupted(tmp_path / "ignored", signal.SIGTERM)
    run.run(progress=False)
    assert run.step == 6
    run = tiny_trainer(tmp_path / "thread")
    thread = threading.Thread(target=run.run, kwargs={"progress": False})
    thread.start()
    thread.join()
    assert run.step == 6
