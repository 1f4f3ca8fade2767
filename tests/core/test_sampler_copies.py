"""Samplers, states and results are copied, pickled, and sent to other processes."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from conftest import mixture

from composer import Sampler, Stats
from composer.predictions import Prediction
from composer.schedules import DiscreteSchedule
from composer.solvers import DDPM, Heun
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, Anagram, Inpaint, SDEdit


def velocity(alpha, sigma):
    return 1.0, -1.0


def exact():
    means = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    return GaussianMixtureBackend(means, [0.3, 0.2, 0.4], prediction=Prediction("flow", velocity))


STACKS = {
    "plain": {},
    "anagram": {"plugins": [Anagram({"identity": 0, "rotate_180": 1}), CFG(2.0)]},
    "edited": {
        "plugins": [SDEdit(torch.zeros(1, 4, 4), 0.9), Inpaint(torch.zeros(1, 4, 4), torch.eye(4))],
        "solver": DDPM(),
    },
    "heun": {"solver": Heun(), "max_rows": 1},
}
AGAIN = {"copied": copy.deepcopy, "pickled": lambda thing: pickle.loads(pickle.dumps(thing))}


def sampler(name, backend=None):
    return Sampler(backend or exact(), num_inference_steps=5, **STACKS[name])


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("name", STACKS)
def test_a_sampler_again(name, again):
    original = sampler(name)
    other = AGAIN[again](original)
    assert torch.equal(other.sample(None, [0, 1]).x, original.sample(None, [0, 1]).x)
    assert (other.times, other.max_rows) == (original.times, original.max_rows)
    assert other.backend is not original.backend
    assert repr(other) == repr(original)


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("name", STACKS)
def test_a_state_again_goes_on_like_the_first(name, again):
    """It holds all that the rest of the run depends on, generators included."""
    for state in sampler(name).stream(None, [0, 1]):
        other = AGAIN[again](state)
        assert torch.equal(other.x, state.x)
        assert torch.equal(other.randn(), state.randn())
        assert (other.t, other.step, other.seeds) == (state.t, state.step, state.seeds)
        assert torch.equal(other.estimate.x0, state.estimate.x0)


@pytest.mark.parametrize("again", AGAIN)
def test_a_result_again(again):
    result = sampler("anagram").sample(seeds=[3, 4])
    _ = result.images  # what was looked at goes along
    other = AGAIN[again](result)
    assert torch.equal(other.x, result.x)
    assert (other.seeds, other.recipe) == (result.seeds, result.recipe)
    assert vars(other.stats) == vars(result.stats)
    assert [i.tobytes() for i in other.images] == [i.tobytes() for i in result.images]
    assert vars(AGAIN[again](Stats(calls=3))) == vars(Stats(calls=3))


@pytest.mark.parametrize("again", AGAIN)
def test_the_times_of_a_device_are_copied_not_its_events(again):
    class Event:
        def synchronize(self): ...

        def elapsed_time(self, other):
            return 1500.0  # milliseconds

        def __reduce__(self):
            pytest.fail("an event cannot leave its process")

    other = AGAIN[again](Stats(calls=1, _seconds=0.5, _events=[(Event(), Event())]))
    assert (other.calls, other.model_seconds) == (1, 2.0)


def test_a_copy_shares_what_the_original_shares():
    backend = exact()
    one, other = copy.deepcopy([sampler("plain", backend), sampler("heun", backend)])
    assert one.backend is other.backend
    assert one.backend is not backend


def test_a_discrete_schedule_goes_along():
    original = Sampler(mixture(DiscreteSchedule.linear()), num_inference_steps=3)
    assert torch.equal(copy.deepcopy(original).sample(1).x, original.sample(1).x)


def test_spawned_processes_sample_the_same():
    """False failures: none, the arithmetic is the same."""
    original, seeds = sampler("edited"), [0, 1]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(original.sample, None, seeds).result()
    assert torch.equal(result.x, original.sample(None, seeds).x)
