"""Autoguidance, and the backend that holds a weaker model."""

import json

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st

import composer
from composer import UNCONDITIONAL, Request, Sampler, hookimpl
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import Heun
from composer.testing import GaussianMixtureBackend, IdentityBackend
from composer_plugins import APG, CFG, Anagram, Autoguidance, WithWeak

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def blurred(schedule=None, prediction="flow"):
    """The mixture's poorer self: components twice as broad, and pulled towards zero."""
    strong = mixture(schedule, prediction)
    return GaussianMixtureBackend(
        0.7 * strong.means,
        [2 * std for std in strong.stds],
        schedule=strong.schedule,
        prediction=strong.prediction,
    )


@settings(max_examples=20)
@given(st.floats(-1, 8))
def test_guidance_is_the_published_formula(scale):
    strong, weak = mixture(), blurred()
    good, bad = (Sampler(b).denoise(X, 0.1, 1).prediction for b in (strong, weak))
    made = Sampler(WithWeak(strong, weak), [Autoguidance(scale)]).denoise(X, 0.1, 1)
    torch.testing.assert_close(made.prediction, scale * good + (1 - scale) * bad)


def test_the_guided_flow_ends_where_its_closed_form_does():
    """Of two Gaussians of one spread, the guided ODE is that of a Gaussian at the guided mean."""
    means = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(5)).double()
    strong, weak = (GaussianMixtureBackend(m[None], [0.3]) for m in means)
    sampler = Sampler(WithWeak(strong, weak), [Autoguidance(2.5)], Heun(), num_inference_steps=100)
    noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    closed = 2.5 * means[0] - 1.5 * means[1] + 0.3 * noise
    torch.testing.assert_close(sampler.sample(0, seeds=[1]).x, closed, rtol=0, atol=2e-3)


def test_a_weak_model_of_another_path_and_prediction_is_the_same_model():
    strong, stack = mixture(), [Autoguidance(3.0), CFG(2.0)]
    same = Sampler(WithWeak(strong, blurred()), stack).denoise(X, 0.3, 1)
    other = blurred(DiscreteSchedule.linear(), "epsilon")
    made = Sampler(WithWeak(strong, other), stack).denoise(X, 0.3, 1)
    torch.testing.assert_close(made.prediction, same.prediction, rtol=1e-5, atol=1e-5)


def test_one_row_each_in_one_call():
    backend = WithWeak(mixture(), blurred())
    for stack, rows in (
        ([Autoguidance(2.0)], 2),
        ([Autoguidance(1.0)], 1),
        ([Autoguidance(0.0)], 1),
        ([Autoguidance(2.0), CFG(3.0)], 4),
        ([CFG(3.0), Autoguidance(2.0)], 4),
        ([APG(Autoguidance(2.0))], 2),
    ):
        stats = Sampler(backend, stack, num_inference_steps=3).sample(1, seeds=[0, 1]).stats
        assert (stats.evaluated, stats.rows, stats.calls) == (3 * rows, 6 * rows, 3)
    stack = [Autoguidance(2.0, interval=(0.0, 0.5))]
    assert Sampler(backend, stack, num_inference_steps=10).sample(1).stats.evaluated == 15


def test_a_model_is_its_own_equal():
    strong = mixture()
    twice = Sampler(WithWeak(strong, mixture()), [Autoguidance(4.0)], num_inference_steps=4)
    plain = Sampler(strong, num_inference_steps=4)
    torch.testing.assert_close(twice.sample(1).x, plain.sample(1).x)
    weak = Sampler(WithWeak(strong, blurred()), [Autoguidance(0.0)], num_inference_steps=4)
    assert torch.equal(weak.sample(1).x, Sampler(blurred(), num_inference_steps=4).sample(1).x)


def test_it_commutes_with_anagrams_and_with_guidance():
    backend = WithWeak(mixture(), blurred())
    views, own, cfg = Anagram({"identity": 0, "flip": 1}), Autoguidance(3.0), CFG(2.0)
    made = [
        Sampler(backend, stack, num_inference_steps=4).sample(seeds=[2])
        for stack in ([views, own, cfg], [own, views, cfg], [cfg, own, views])
    ]
    for other in made[1:]:
        torch.testing.assert_close(other.x, made[0].x)
        assert other.stats.evaluated == made[0].stats.evaluated == 4 * 8


@pytest.mark.parametrize("prediction", sorted(PREDICTIONS))
@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
def test_it_obeys_the_law(schedule, prediction):
    parts = [IdentityBackend((1, 8, 8), schedule, PREDICTIONS[prediction]) for _ in range(2)]
    stack = [Autoguidance(3.0), Anagram({"identity": 0, "flip": 1}), CFG(4.0)]
    estimate = Sampler(WithWeak(*parts), stack).denoise(X, schedule.time_at(0.5))
    torch.testing.assert_close(estimate.prediction, X)


def test_memory_bounds_hold():
    backend, stack = WithWeak(mixture(), blurred()), [Autoguidance(2.0), CFG(3.0)]
    whole = Sampler(backend, stack, num_inference_steps=2).sample(1, seeds=range(3))
    cut = Sampler(backend, stack, num_inference_steps=2, max_rows=3).sample(1, seeds=range(3))
    torch.testing.assert_close(cut.x, whole.x)
    assert cut.stats.calls > whole.stats.calls == 2


def test_it_is_in_the_recipe():
    backend = composer.load_backend("with_weak", main="mnist", weak="mnist-ddpm")
    result = Sampler(backend, [Autoguidance(1.5)], num_inference_steps=1).sample(3)
    recipe = json.loads(json.dumps(result.recipe))
    again = Sampler.from_recipe(recipe, trust=["main", "weak"]).sample(**composer.call_of(recipe))
    assert torch.equal(again.x, result.x)
    assert again.recipe == recipe


def test_a_backend_of_one_model_raises_when_built():
    with pytest.raises(ValueError, match="GaussianMixtureBackend holds no model 'weak'. Use"):
        Sampler(mixture(), [Autoguidance(2.0)])
    with pytest.raises(ValueError, match="WithWeak holds no model 'bad'"):
        Sampler(WithWeak(mixture(), blurred()), [Autoguidance(2.0, model="bad")])
    with pytest.raises(ValueError, match="holds no model 'weak'"):
        Sampler(mixture(), [APG(Autoguidance(2.0))])


def test_a_model_that_nobody_checked_raises_before_the_call():
    class Careless:
        @hookimpl
        def noise_estimate(self, request: Request):
            return (yield [request.replace(model="other")])[0]

    with pytest.raises(
        ValueError, match="model must be one of GaussianM.* has one only, got 'other'"
    ):
        Sampler(mixture(), [Careless()]).sample(1)


class Hooked(IdentityBackend):
    @hookimpl
    def finish(self, state): ...


def test_models_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="must be of one shape"):
        WithWeak(mixture(), IdentityBackend((1, 9, 9)))
    with pytest.raises(ValueError, match="must be of one dtype"):
        WithWeak(mixture(), IdentityBackend((1, 8, 8), dtype=torch.float32))
    with pytest.raises(ValueError, match="must not answer hooks, got Hooked"):
        WithWeak(mixture(), Hooked((1, 8, 8)))
    with pytest.raises(ValueError, match="a condition must be a component"):
        Sampler(WithWeak(mixture(), blurred()), [Autoguidance(2.0)]).sample(99)


def test_conditions_are_in_the_terms_of_both():
    backend = WithWeak(mixture(), blurred())
    once = backend.encode(2)
    assert backend.encode(once) is once
    assert {once: 1}[backend.encode(2)] == 1
    assert backend.encode(UNCONDITIONAL) != once


@pytest.mark.parametrize(
    ("arguments", "error"), [(("2",), TypeError), ((2.0, (0.7, 0.3)), ValueError)]
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="Autoguidance: "):
        Autoguidance(*arguments)
