"""Training in two processes: one batch shared, gradients averaged, one writer."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from composer.predictions import FLOW
from composer.schedules import FlowSchedule
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages
from composer_lab.training.objective import Objective
from composer_lab.training.processes import Processes
from composer_lab.training.trainer import Trainer


class Affine(nn.Module):
    """Without batch norm, whose statistics are of each process's part."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.time = nn.Linear(1, 1)

    def forward(self, x, times, labels):
        return self.conv(x) + self.time(times[:, None])[:, :, None, None]


def trainer(folder, batch_size=8):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (24, 8, 8), dtype=torch.uint8)
    config = TrainingConfig(
        epochs=2,
        batch_size=batch_size,
        learning_rate=1e-2,
        checkpoint_every=2,
        snapshots=(1,),
        bf16=False,  # which rounds more than the sums of parts do
    )
    data = FixedImages(images, torch.zeros(24, dtype=torch.int64))
    return Trainer(Affine(), Objective(FlowSchedule(), FLOW), data, 0, config, folder)


def write(network, folder):
    torch.save(network.state_dict(), folder / f"written-by-{os.environ.get('RANK', 'alone')}.pt")


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import test_training_processes as ours
run = ours.trainer(Path(sys.argv[2]))
run.run(progress=False, write=ours.write)
torch.save((run.losses, run.averaged().state_dict()), f"{sys.argv[2]}-{run.processes.main}.pt")
run.processes.accelerator.end_training()
"""


def launch(folder):
    """As torchrun and accelerate launch do, on two processors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-c", SCRIPT, here, str(folder)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    assert [process.wait(300) for process in processes] == [0, 0]


def test_two_processes_find_what_one_finds(tmp_path):
    alone = trainer(tmp_path / "alone")
    expected = alone.run(progress=False, write=write).state_dict()
    launch(tmp_path / "both")
    for main in (True, False):
        losses, weights = torch.load(tmp_path / f"both-{main}.pt", weights_only=True)
        assert losses == pytest.approx(alone.losses, rel=1e-5)
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)
    written = {str(path.relative_to(tmp_path / "both")) for path in (tmp_path / "both").rglob("*")}
    assert written == {
        "checkpoint.pt",
        "log.json",
        "written-by-0.pt",
        "epoch-001",
        "epoch-001/written-by-0.pt",
    }


def test_a_number_of_processes_must_be_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ValueError, match="WORLD_SIZE must be the number of processes, got 'many'"):
        Processes.launched("cpu")


@pytest.mark.parametrize(("others", "stops"), [(0, False), (1, True)])
def test_processes_stop_together(others, stops):
    """One that heard a signal sums it with those that did not."""

    class Accelerator:
        def reduce(self, value, how):
            assert how == "sum"
            return value + others

    assert Processes(torch.device("cpu"), Accelerator()).any(False) is stops
    assert Processes(torch.device("cpu")).any(bool(others)) is stops
