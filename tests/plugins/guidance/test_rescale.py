"""Guidance rescale, against diffusers and against its own definition."""

import json

import pytest
import torch
from conftest import mixture
from diffusers.guiders.guider_utils import rescale_noise_cfg
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import Sampler, installed
from composer.predictions import V
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer_plugins import APG, CFG, Anagram, Rescale

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@settings(max_examples=20)
@given(st.floats(0, 1), st.floats(-2, 12), st.sampled_from([999.0, 600.0, 5.0]))
def test_with_a_model_of_v_it_is_diffusers_own(phi, scale, t):
    backend = mixture(DiscreteSchedule.linear(), "v")
    plain = Sampler(backend).denoise(X, t, 1).prediction
    guided = Sampler(backend, [CFG(scale)]).denoise(X, t, 1).prediction
    ours = Sampler(backend, [Rescale(CFG(scale), phi)]).denoise(X, t, 1)
    torch.testing.assert_close(ours.prediction, rescale_noise_cfg(guided, plain, phi))


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
def test_the_image_does_not_depend_on_the_prediction(schedule):
    samples = [
        Sampler(mixture(schedule, kind), [Rescale(CFG(6.0))], num_inference_steps=5).sample(1).x
        for kind in ("v", "flow")
    ]
    torch.testing.assert_close(*samples)


def test_phi_zero_is_the_guidance_and_scale_one_the_conditional_model():
    backend = mixture()
    for stack, same in (
        ([Rescale(CFG(5.0), 0.0)], [CFG(5.0)]),
        ([Rescale(CFG(1.0), 0.7)], []),
    ):
        one, other = (Sampler(backend, s, num_inference_steps=4).sample(1).x for s in (stack, same))
        torch.testing.assert_close(one, other)


def test_phi_one_has_the_spread_of_the_conditional_model():
    backend = mixture()
    plain = Sampler(backend).denoise(X, 0.1, 1)
    kept = Sampler(backend, [Rescale(CFG(9.0), 1.0)]).denoise(X, 0.1, 1)
    alpha, sigma = backend.schedule.at(0.1)
    for made, wanted in zip(kept.prediction, plain.x0 * -sigma + plain.noise * alpha, strict=True):
        torch.testing.assert_close(made.std(), wanted.std())
    guided = Sampler(backend, [CFG(9.0)]).denoise(X, 0.1, 1)
    assert (guided.x0 - kept.x0).abs().max() > 0.1


def test_an_epsilon_model_at_pure_noise_gives_no_nan():
    class OnlyNoise(DiscreteSchedule):
        def alpha_sigma(self, t):
            return torch.zeros_like(t), torch.ones_like(t)

    backend = mixture(OnlyNoise(DiscreteSchedule.linear().alphas_cumprod), "epsilon")
    assert Sampler(backend, [Rescale(CFG(3.0))]).denoise(X, 999.0, 1).x0.isfinite().all()


def test_it_asks_no_more_than_the_guidance():
    sampler = Sampler(mixture(), [Rescale(CFG(4.0, interval=(0.0, 0.5)))], num_inference_steps=10)
    stats = sampler.sample(1).stats
    assert (stats.evaluated, stats.calls) == (5 * 1 + 5 * 2, 10)


def test_inside_an_anagram_it_sees_each_view_and_around_it_the_mean():
    backend, t = mixture(), 0.1
    views = Anagram({"identity": 0, "flip": 1})
    inside = Sampler(backend, [views, Rescale(CFG(7.0))]).denoise(X, t)
    alone = Sampler(backend, [Rescale(CFG(7.0))])
    one, other = alone.denoise(X, t, 0).x0, alone.denoise(X.flip(-2), t, 1).x0.flip(-2)
    torch.testing.assert_close(inside.x0, (one + other) / 2)
    around = Sampler(backend, [Rescale(CFG(7.0), 1.0), views]).denoise(X, t)
    plain = Sampler(backend, [views]).denoise(X, t)
    v = V.target(plain.x0, plain.noise, *backend.schedule.at(t))
    torch.testing.assert_close(around.prediction.std((1, 2, 3)), v.std((1, 2, 3)))
    assert (around.x0 - inside.x0).abs().max() > 1e-3


def test_guidances_nest():
    backend = mixture()
    nested = Sampler(backend, [Rescale(APG(CFG(5.0), eta=1.0))]).denoise(X, 0.1, 1)
    plain = Sampler(backend, [Rescale(CFG(5.0))]).denoise(X, 0.1, 1)
    torch.testing.assert_close(nested.x0, plain.x0)


def test_it_leaves_the_law():
    """A lawful guidance is affine in its scale; this is not."""
    backend, t = mixture(), 0.1
    x0 = {}
    for scale in (1.0, 3.0, 5.0):
        x0[scale] = Sampler(backend, [Rescale(CFG(scale), 1.0)]).denoise(X, t, 1).x0
    assert (x0[3.0] - (x0[1.0] + x0[5.0]) / 2).abs().max() > 1e-3


def test_it_is_in_the_recipe():
    plugin = Rescale(CFG(5.0, interval=(0.1, 0.9)), 0.5)
    again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
    assert (again.phi, again.guidance.scale, again.guidance.interval) == (0.5, 5.0, (0.1, 0.9))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((3.0,), TypeError), ((CFG,), TypeError), ((CFG(2.0), 1.5), ValueError)],
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="Rescale: "):
        Rescale(*arguments)
