"""Numbers of rows on a device."""

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from composer import placing
from composer.authoring import numbers_to_device

NUMBERS = st.floats(-1000, 1000, width=32)


class Operations(TorchDispatchMode):
    """The names of torch's operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@given(
    st.lists(NUMBERS | st.integers(-9, 9), max_size=5)
    | st.tuples(NUMBERS | st.just(Fraction(1, 2))).map(lambda one: one * 4),
)
def test_numbers_are_rows_of_float32(numbers):
    found = numbers_to_device(numbers, torch.device("cpu"))
    assert found.dtype == torch.float32
    assert found.tolist() == [*numbers]


def test_equal_numbers_are_filled_in_on_the_device():
    with Operations() as seen:
        found = numbers_to_device((0.5,) * 4, torch.device("meta"))
    assert (found.shape, found.device.type, seen.names) == ((4,), "meta", ["full"])


def test_other_numbers_are_sent_without_a_wait(monkeypatch):
    sent = []
    monkeypatch.setattr(placing, "to_device", lambda tensor, device: sent.append((tensor, device)))
    numbers_to_device((0.5, 0.25), torch.device("meta"))
    ((tensor, device),) = sent
    assert (tensor.tolist(), tensor.device.type, device.type) == ([0.5, 0.25], "cpu", "meta")
