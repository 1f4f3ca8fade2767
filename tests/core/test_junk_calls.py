"""Junk in place of an argument is answered by an error of this library: benchmarks/fuzz_junk.py."""

import random

import pytest
import torch
from conftest import mixture
from fuzz_junk import JUNK, attempt, attempts, calls

from composer import Sampler
from composer.arguments import finite, floating
from composer.requests import combine
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer_plugins import CFG


@pytest.fixture(scope="module")
def every_call():
    return calls()


def test_every_call_that_is_fuzzed_works_with_its_own_arguments(every_call):
    assert len(every_call) > 80
    for call in every_call:
        call.function(**call.arguments)


def test_of_two_thousand_junk_calls_none_raises_a_raw_error(every_call):
    """Of all but loaders, whose networks take seconds to read."""
    cheap = [call for call in every_call if "load_backend" not in call.name]
    planned = random.Random(0).sample(attempts(cheap), 2000)
    raw = [attempt(call, argument, JUNK[k]()) for call, argument, k in planned]
    assert [error for error in raw if error] == []


@pytest.mark.parametrize(
    "value", [10**30, -(10**30), 10**5000, 1e19, float("inf"), float("nan")], ids=range(6)
)
def test_a_number_that_torch_cannot_hold_is_an_error_before_the_model_is_asked(value):
    with pytest.raises(ValueError, match="x must be finite and at most 1e\\+18 in size, got"):
        finite(value, "x")
    with pytest.raises(ValueError, match="CFG: scale must be finite"):
        CFG(value)


@pytest.mark.parametrize("value", [None, [0.0], torch.zeros(2, dtype=torch.int64)])
def test_what_is_no_tensor_of_floating_point_is_named(value):
    with pytest.raises(TypeError, match="x must be a floating-point tensor, got"):
        floating(value, "x")


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear(50)])
def test_a_time_may_be_a_tensor_of_one_number_and_not_nan(schedule):
    t = schedule.times(4)[1]
    assert schedule.at(torch.tensor(t, dtype=torch.float64)) == schedule.at(t)
    for nan in (float("nan"), torch.tensor(float("nan")), torch.tensor([t, float("nan")])):
        with pytest.raises(ValueError, match="times must be in|t must be finite"):
            schedule.add_noise(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), nan)


@pytest.mark.parametrize(("weights", "count"), [([], 0), ([1.0], 0), ([0.5, 0.5], 1), ([], 1)])
def test_weights_are_one_for_each_estimate(weights, count):
    backend = mixture()
    estimate = Sampler(backend).denoise(torch.zeros(1, 1, 8, 8, dtype=torch.float64), 0.5, 0)
    with pytest.raises(ValueError, match="combine: weights must be a number for each estimate"):
        combine(weights, [estimate] * count)


class Exhausted:
    """A backend that runs out of answers."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def evaluate(self, batch):
        return next(iter(()))


def test_an_iterator_of_a_backend_that_ends_is_no_end_of_the_run():
    """A StopIteration would end any generator around it as if all were well."""
    sampler = Sampler(Exhausted(mixture()), num_inference_steps=2)
    with pytest.raises((StopIteration, RuntimeError)):
        sampler.sample(0)
    with pytest.raises((StopIteration, RuntimeError)):
        list(sampler.stream(0))
