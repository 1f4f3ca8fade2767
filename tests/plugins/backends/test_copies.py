"""Backends are copied, pickled, sent to processes that are spawned, and keep their contract."""

import copy
import dataclasses
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from tiny_mnist import tiny_unet as tiny_mnist_unet
from tiny_unet import load, write

import composer
from composer import UNCONDITIONAL, Request
from composer.model import evaluated
from composer.predictions import EPSILON, FLOW, PREDICTIONS, V
from composer.reparametrised import Reparametrised
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM
from composer.testing import GaussianMixtureBackend, IdentityBackend, check_backend
from composer.words import short
from composer_plugins.backends.mnist import MnistBackend
from composer_plugins.backends.mnist.folded import FoldedUNet
from composer_plugins.backends.with_weak import WithWeak


def digits():
    return MnistBackend(FoldedUNet(tiny_mnist_unet("class")), FlowSchedule(), FLOW)


def with_weak():
    return WithWeak(digits(), digits())


def reparametrised():
    return Reparametrised(digits(), DiscreteSchedule.linear(), EPSILON, DDIM())


def mixture():
    return GaussianMixtureBackend(torch.zeros(2, 1, 4, 4), [0.2, 0.4], prediction=V)


MADE = {
    "mnist": (digits, 3),
    "with weak": (with_weak, 3),
    "reparametrised": (reparametrised, 3),
    "mixture": (mixture, 1),
    "identity": (IdentityBackend, "anything"),
}


@pytest.fixture(params=[*MADE, "nouns", "diffusers", "deepfloyd", "upscaler", "latent"])
def backend(request, tmp_path):
    """A backend of each kind, and a condition that it knows."""
    if request.param in MADE:
        make, condition = MADE[request.param]
        return make(), condition
    if request.param == "nouns":
        return composer.load_backend("nouns"), "shrimp-tempura"
    if request.param == "diffusers":
        return load(write(tmp_path, num_class_embeds=5)), 2
    options = {"embeddings": str(tmp_path / "x.safetensors")}
    if request.param == "deepfloyd":
        options["model"] = request.getfixturevalue("tiny_if")[1]
        return composer.load_backend("deepfloyd", **options), "a photo of a cat"
    if request.param == "latent":
        _, options["model"] = request.getfixturevalue("tiny_latent")("flux-dev")
        return composer.load_backend("latent", size=16, **options), "a photo of a cat"
    options |= {"model": request.getfixturevalue("tiny_upscaler"), "stage": 3, "size": 32}
    loaded = composer.load_backend("deepfloyd", **options)
    # Whether a DiffusersSolver can be copied is a question of solvers.
    return dataclasses.replace(loaded, default_solver=DDIM()), "a photo of a cat"


def enlarged(backend, x):
    """What requests to an enlarging model carry beside x."""
    beside = {"low_res": x[:, :3], "noise_level": torch.full((len(x),), 20.0)}
    return beside if getattr(backend, "low_res_schedule", None) else {}


def answer(backend, *conditions):
    """What it says of one image under these conditions."""
    x = torch.randn(2, *backend.shape, generator=torch.Generator().manual_seed(0)).to(backend.dtype)
    beside = enlarged(backend, x)
    t = backend.schedule.times(4)[1]
    with torch.no_grad():
        outputs = evaluated(
            backend, [Request(x, t, backend.encode(c), beside=beside) for c in conditions]
        )
    return torch.stack([output.prediction for output in outputs])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))], ids=["deepcopy", "pickle"]
)
def test_a_copy_answers_alike_and_is_independent(backend, copied):
    backend, condition = backend
    expected = answer(backend, condition)
    other = copied(backend)
    assert (other.prediction, other.shape) == (backend.prediction, backend.shape)
    assert type(other.default_solver) is type(backend.default_solver)
    assert torch.equal(answer(other, condition), expected)
    if hasattr(other, "unet"):
        with torch.no_grad():
            for weight in other.unet.parameters():
                weight.zero_()
        assert not torch.equal(answer(other, condition), expected)
        assert torch.equal(answer(backend, condition), expected)


def test_a_backend_in_a_line(backend):
    """A network by its class alone."""
    backend, _ = backend
    words = repr(backend)
    assert words.startswith(f"{type(backend).__name__}(")
    assert len(words) < 600
    assert "\n" not in words
    assert short(backend) == words


def test_every_backend_keeps_the_contract(backend):
    """The networks are tiny and random, or proved with the kit itself."""
    backend, condition = backend
    x = torch.zeros(1, *backend.shape, dtype=backend.dtype)
    check_backend(backend, [condition], trained=False, beside=enlarged(backend, x))


@pytest.mark.parametrize("kind", sorted(PREDICTIONS))
def test_prediction_types_are_those_they_were(kind):
    for copied in (copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))):
        assert copied(PREDICTIONS[kind]) == PREDICTIONS[kind]


def test_no_condition_is_itself_after_a_journey():
    for value in (copy.deepcopy(UNCONDITIONAL), pickle.loads(pickle.dumps(UNCONDITIONAL))):
        assert value is UNCONDITIONAL


def test_a_spawned_process_answers_alike():
    """It knows nothing of this one but what is sent, UNCONDITIONAL included."""
    jobs = [(make(), condition, UNCONDITIONAL) for make, condition in MADE.values()]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        theirs = list(pool.map(answer, *zip(*jobs, strict=True)))
    for ours, their in zip(jobs, theirs, strict=True):
        assert torch.equal(answer(*ours), their)
