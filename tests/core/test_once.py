"""What is examined once a process: which things are the same, and what is forgotten."""

import gc
import weakref
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from composer import _once
from composer.authoring import once


@pytest.fixture
def calls(monkeypatch):
    """Examine things, and see which of them were: ``calls(thing)`` -> how many so far."""
    monkeypatch.setattr(_once, "_answers", {})
    examined = []

    def look(*of):
        once(lambda: examined.append(None), *of)
        return len(examined)

    return look


@dataclass(frozen=True)
class Value:
    number: int
    held: object = None


class Plain(Value):
    """No dataclass of its own: it may hold more than what is compared."""


@dataclass(frozen=True, eq=False)
class ByIdentity:
    number: int


@dataclass
class Changeable:
    number: int


class Slots:
    __slots__ = ("number",)


def test_equal_frozen_dataclasses_are_one_thing(calls):
    assert [calls(Value(1)), calls(Value(1)), calls(Value(2))] == [1, 1, 2]
    assert [calls("view", Value(1)), calls(Value(1))] == [3, 3]
    assert calls([Value(1), (Value(2), 3, None)], torch.float32) == 4
    assert calls((Value(1), [Value(2), 3, None]), torch.float32) == 4
    assert calls((Value(1), [Value(2), 3, None]), torch.float64) == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plain(1),
        lambda: ByIdentity(1),
        lambda: Changeable(1),
        lambda: Value([1]),  # its field may change
        lambda: torch.zeros(3),
        lambda: partial(torch.flip, dims=(-1,)),
        lambda: lambda x: x,
        Slots,
    ],
)
def test_other_things_are_the_same_if_they_are_one_object(make, calls):
    one, other = make(), make()
    assert [calls(one), calls(one), calls(other), calls(one), calls(other)] == [1, 1, 2, 2, 2]
    assert [calls([one]), calls([one])] == [3, 3]


def test_what_is_examined_is_not_kept_alive_and_its_place_in_memory_is_no_key(calls):
    thing = ByIdentity(1)
    gone = weakref.ref(thing)
    assert calls(thing) == 1
    del thing
    gc.collect()
    assert gone() is None
    for count in range(2, 50):  # some of them lie where it lay
        assert calls(ByIdentity(1)) == count


def test_errors_are_not_remembered(monkeypatch):
    monkeypatch.setattr(_once, "_answers", {})
    outcomes = iter([ValueError("no"), ValueError("no"), 3])

    def examine():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            once(examine, "thing")
    assert [once(examine, "thing"), once(examine, "thing")] == [3, 3]


def test_few_answers_are_kept(calls):
    for number in range(3 * _once.MOST):
        calls(number)
        assert len(_once._answers) <= _once.MOST
    assert calls(3 * _once.MOST - 1) == 3 * _once.MOST
