"""What a call costs: counts, and times that nobody waits for."""

import copy
import pickle
import time

import pytest
import torch
from conftest import mixture

from composer import Sampler
from composer.stats import Stats


def test_on_a_cpu_the_time_of_the_block_is_counted():
    stats = Stats()
    for _ in range(2):
        with stats.timing(torch.device("cpu")):
            time.sleep(0.01)
    assert 0.02 <= stats.model_seconds < 5


class Event:
    """One of CUDA's, which a stand-in keeps: the device's clock is at the number of events."""

    log: list = []  # noqa: RUF012

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        self.at = len(self.log)
        self.log.append(("record", stream))

    def synchronize(self):
        self.log.append(("synchronize", self.at))

    def elapsed_time(self, end):
        return 1000.0 * (end.at - self.at)


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(Event, "log", [])
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    return torch.device("cuda")


def test_on_a_cuda_device_it_is_waited_for_when_it_is_read(device):
    stats = Stats()
    for _ in range(3):
        with stats.timing(device):
            pass
    assert Event.log == [("record", "stream of cuda")] * 6
    assert stats.model_seconds == 3.0
    assert [name for name, _ in Event.log[6:]] == ["synchronize"] * 3
    assert stats.model_seconds == 3.0  # read once
    assert len(Event.log) == 9


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_hold_the_time_and_no_events(device, copied):
    stats = Stats()
    with stats.timing(device):
        pass
    assert copied(stats).model_seconds == 1.0


def test_the_numbers_are_shown():
    stats = Sampler(mixture(), num_inference_steps=3).sample(1).stats
    assert repr(stats).startswith("Stats(requested=3, evaluated=3, rows=3, calls=3, model_seconds=")
    assert stats.seconds >= stats.model_seconds > 0
