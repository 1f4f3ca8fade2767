"""Numbers of rows on a device."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from composer.authoring import numbers_to_device
from composer.testing.reads import Reads

NUMBERS = st.floats(-1000, 1000, width=32)


@given(
    st.lists(NUMBERS, min_size=1, max_size=5) | st.tuples(NUMBERS).map(lambda one: one * 4),
)
def test_numbers_are_float32_rows_that_need_no_read(numbers):
    with Reads() as seen:
        found = numbers_to_device(numbers, torch.device("cpu"))
    assert found.tolist() == [*numbers]
    assert (found.dtype, found.device.type, seen.counts) == (torch.float32, "cpu", {})


class Operations(TorchDispatchMode):
    """The names of torch's operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_equal_numbers_are_filled_in_on_the_device():
    for numbers, expected in (((0.5,) * 4, ["full"]), ((0.5, 0.25), None)):
        with Operations() as seen:
            found = numbers_to_device(numbers, torch.device("meta"))
        assert (found.shape, found.device.type) == ((len(numbers),), "meta")
        assert (seen.names == expected) == (expected is not None)
