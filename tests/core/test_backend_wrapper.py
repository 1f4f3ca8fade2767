"""A backend around another one has what that has, and nothing else."""

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from conftest import mixture

import composer
from composer import Sampler
from composer.authoring import BackendWrapper, hooks_of, image_shape_of
from composer.predictions import FLOW
from composer.protocols import spread
from composer.reparametrised import Reparametrised
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, Euler
from composer.testing import GaussianMixtureBackend, OrthogonalCodecBackend
from composer_plugins import Canvas
from composer_plugins.backends.with_weak import WithWeak

WIDE = FlowSchedule(noise_scale=2.0)


@dataclass(frozen=True, eq=False, repr=False)
class Plain(BackendWrapper):
    inner: composer.Backend

    def evaluate(self, batch):
        return self.inner.evaluate(batch)


AROUND = {
    "plain": Plain,
    "reparametrised": lambda inner: Reparametrised(inner, WIDE, FLOW, Euler()),
    "with weak": lambda inner: WithWeak(inner, inner),
    "canvas": lambda inner: Canvas(inner, image_shape_of(inner)[1:]),
    "codec": OrthogonalCodecBackend,
}


@dataclass(frozen=True, eq=False, repr=False)
class Full(GaussianMixtureBackend):
    """A mixture with every optional attribute but those of latents."""

    guidance = 3.5
    low_res_schedule = DiscreteSchedule.linear()
    networks = {"net": torch.nn.Identity()}  # noqa: RUF012
    loaded_as = {"name": "full", "options": {}}  # noqa: RUF012
    models = ("strong",)


@pytest.fixture(params=AROUND)
def around(request):
    return AROUND[request.param]


OPTIONAL = ["guidance", "low_res_schedule", "networks", "models", "image_shape", "encode_image"]


def test_it_has_the_optional_attributes_of_the_inner_one(around):
    inner = Full(mixture().means, mixture().stds)
    made = around(inner)
    assert made.guidance == 3.5
    assert made.low_res_schedule is inner.low_res_schedule
    assert made.differentiable
    assert torch.nn.Identity in map(type, made.networks.values())
    if not isinstance(made, WithWeak):
        assert made.models == ("strong",)


def test_it_has_none_that_the_inner_one_lacks(around):
    made = around(mixture())
    own = {
        OrthogonalCodecBackend: {"image_shape", "encode_image"},
        WithWeak: {"models", "networks"},
    }
    own[Canvas] = {"image_shape", "encode_image"}
    has = {name for name in OPTIONAL if hasattr(made, name)}
    assert has == own.get(type(made), set())
    assert hooks_of(made) == ({"finish"} if isinstance(made, OrthogonalCodecBackend) else set())
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = made.nonsense


def test_how_the_inner_one_was_loaded_is_not_how_it_was(around):
    made = around(Full(mixture().means, mixture().stds))
    if isinstance(made, Canvas):
        assert made.loaded_as["name"] == "canvas"  # load_backend("canvas", ...) makes it again
    else:
        assert not hasattr(made, "loaded_as")


def test_who_computes_the_inner_one_s_rows_does_not_compute_its_rows():
    """Else the loop would hand rows of one path to a model on another."""
    means = mixture().means
    inner = GaussianMixtureBackend(means, mixture().stds, schedule=DiscreteSchedule.linear())
    one = Reparametrised(Canvas(inner, (8, 20)), FlowSchedule(), FLOW, Euler())
    other = Canvas(Reparametrised(inner, FlowSchedule(), FLOW, Euler()), (8, 20))
    x = torch.randn(1, 1, 8, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        *(Sampler(made).denoise(x, 0.3, 1).prediction for made in (one, other))
    )
    batch = object()
    assert spread(one, batch)[:2] == (one, batch)


def test_hooks_of_the_inner_one_are_answered():
    """A latent model on another path decodes: it is the codec around that path's model."""
    inner = mixture(DiscreteSchedule.linear(), "epsilon")
    one = Reparametrised(OrthogonalCodecBackend(inner), FlowSchedule(), FLOW, DDIM())
    other = OrthogonalCodecBackend(Reparametrised(inner, FlowSchedule(), FLOW, DDIM()))
    made = [Sampler(backend, num_inference_steps=4).sample(1).x for backend in (one, other)]
    assert made[0].shape == (1, 1, 8, 8)
    torch.testing.assert_close(*made)


def test_it_copies(around):
    made = around(mixture())
    expected = Sampler(made, num_inference_steps=2).sample(1).x
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(Sampler(again, num_inference_steps=2).sample(1).x, expected)
        assert repr(again) == repr(made)
