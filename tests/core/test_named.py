"""Torch's objects by their names: in loaders, and in a backend of one's own."""

import copy
import pickle

import pytest
import torch

from composer import Output, Sampler, hookimpl
from composer.named import device_of, dtype_of, prediction_of
from composer.predictions import FLOW, V
from composer.schedules import FlowSchedule
from composer.solvers import Euler
from composer.testing import GaussianMixtureBackend, IdentityBackend
from composer_plugins import CFG

OBJECTS = {
    "device": torch.device("cpu"),
    "dtype": torch.float32,
    "prediction": FLOW,
    "shape": (1, 4, 4),
    "schedule": FlowSchedule(),
}
NAMES = {"device": "cpu", "dtype": "float32", "prediction": "flow", "shape": [1, 4, 4]}


class Own:
    """Predicts what it is asked about, less its condition; reads its own attributes as given."""

    default_solver = Euler()

    def __init__(self, **attributes):
        vars(self).update({**OBJECTS, **attributes})
        self.calls = 0

    def encode(self, condition):
        return condition

    def evaluate(self, batch):
        self.calls += 1
        ones = torch.tensor([condition == 1 for condition in batch.conditions])
        return Output(batch.x - ones.to(batch.x)[:, None, None, None])


class Halving(Own):
    """Answers a hook, too."""

    @hookimpl
    def finish(self, state):
        state.x = state.x / 2


@pytest.mark.parametrize("kind", [Own, Halving])
@pytest.mark.parametrize("names", [NAMES, *({n: v} for n, v in NAMES.items())])
def test_a_backend_may_give_names(kind, names):
    backend = kind(**names)
    sampler = Sampler(backend, [CFG(2.0)], num_inference_steps=3)
    right = Sampler(kind(), [CFG(2.0)], num_inference_steps=3).sample(1, range(2))
    assert torch.equal(sampler.sample(1, range(2)).x, right.x)
    assert {name: getattr(backend, name) for name in names} == names  # as it was given
    assert backend.calls == 3
    read = sampler.backend
    assert (read.device, read.dtype, read.prediction) == (OBJECTS["device"], torch.float32, FLOW)
    assert read.shape == (1, 4, 4)


def test_a_backend_of_objects_is_left_alone():
    backend = Own()
    assert Sampler(backend).backend is backend


@pytest.mark.parametrize("again", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_what_stands_for_a_backend_is_copied_and_pickled(again):
    read = again(Sampler(Own(**{**NAMES, "dtype": "float64"})).backend)
    assert (read.dtype, read.prediction, read.shape) == (torch.float64, FLOW, (1, 4, 4))
    assert Sampler(read, num_inference_steps=2).sample().x.dtype == torch.float64


@pytest.mark.parametrize(
    ("attribute", "error", "sentence"),
    [
        (
            {"device": "abacus"},
            ValueError,
            "Own: device must be a name that torch knows, got 'abacus'",
        ),
        ({"device": 0}, TypeError, "Own: device must be a torch.device or its name, got 0"),
        ({"dtype": "float33"}, ValueError, "Own: dtype must be one of .*float32.*, got 'float33'"),
        ({"dtype": float}, ValueError, "Own: dtype must be one of .*, got <class 'float'>"),
        ({"prediction": "eps"}, ValueError, "Own: prediction must be one of .*epsilon.* got 'eps'"),
        ({"prediction": None}, ValueError, "Own: prediction must be one of .*, got None"),
        ({"shape": 28}, TypeError, r"Own: shape must be \(C, H, W\), three integers, got 28"),
        ({"shape": (28, 28)}, TypeError, r"Own: shape must be \(C, H, W\), three integers"),
        ({"shape": (1, 0, 4)}, ValueError, "Own: each of shape must be an integer of at least 1"),
        ({"schedule": "flow"}, TypeError, "Own: schedule must be a Schedule, got str, which lacks"),
        ({"default_solver": None}, TypeError, "solver must be a solver object"),
    ],
)
def test_what_no_attribute_can_be_is_one_sentence(attribute, error, sentence):
    with pytest.raises(error, match=sentence) as raised:
        Sampler(Own(**attribute))
    assert "\n" not in str(raised.value)


def test_the_exact_backends_take_names():
    means = torch.zeros(1, 1, 4, 4)
    named = GaussianMixtureBackend(means, [0.5], prediction="v", dtype="float32")
    exact = GaussianMixtureBackend(means, [0.5], prediction=V, dtype=torch.float32)
    one, other = (Sampler(b, num_inference_steps=3).sample().x for b in (named, exact))
    assert torch.equal(one, other)
    assert IdentityBackend(prediction="v", dtype="torch.float32", device="cpu").prediction is V


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_dtype_by_name(kind):
    words = str(kind)
    assert dtype_of(kind) is dtype_of(words) is dtype_of(words.removeprefix("torch.")) is kind


@pytest.mark.parametrize("other", [torch.int64, "int64", "complex64", "", "torch", None, 16])
def test_another_dtype_is_refused(other):
    with pytest.raises(ValueError, match="dtype must be one of"):
        dtype_of(other)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")]
)
def test_auto_is_the_first_device_there_is(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    present = None if best == "cpu" else torch.device(best)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: present)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert device_of("auto") == torch.device(best)


def test_a_prediction_by_name():
    assert prediction_of("v") is prediction_of(V) is V
