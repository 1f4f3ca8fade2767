"""Adaptive projected guidance, against diffusers and against its own definition."""

import json
import math

import pytest
import torch
from conftest import mixture
from diffusers.guiders.adaptive_projected_guidance import normalized_guidance
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Sampler, installed
from composer.predictions import PREDICTIONS
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import IdentityBackend
from composer_plugins import APG, CFG, Anagram
from composer_plugins.guidance.apg import parallel, shortened

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
PIXELS = X[0].numel()


@settings(max_examples=20)
@given(
    st.floats(-1, 1), st.floats(1.1, 15), st.floats(0.1, 20), st.sampled_from([999.0, 600.0, 9.0])
)
def test_it_is_diffusers_own_on_the_clean_images(eta, scale, radius, t):
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    cond, uncond = (Sampler(backend).denoise(X, t, c).x0 for c in (1, UNCONDITIONAL))
    theirs = normalized_guidance(
        cond, uncond, scale - 1, eta=eta, norm_threshold=radius, use_original_formulation=True
    )
    plugin = APG(CFG(scale), eta, radius * (scale - 1) / math.sqrt(PIXELS))
    ours = Sampler(backend, [plugin]).denoise(X, t, 1).x0
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_the_parts_are_orthogonal_and_sum_to_the_whole(seed):
    generator = torch.Generator().manual_seed(seed)
    update, image = torch.randn(2, 3, 1, 8, 8, generator=generator, dtype=torch.float64)
    image[2] = 0
    along = parallel(update, image)
    across = update - along
    assert (across * image).sum((1, 2, 3)).abs().max() < 1e-10
    assert (across * along).sum((1, 2, 3)).abs().max() < 1e-10
    assert torch.equal(along[2], image[2])


@settings(max_examples=20)
@given(st.floats(0.01, 3), st.integers(0, 99))
def test_the_threshold_is_a_root_mean_square(longest, seed):
    update = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    update[2] = 0
    short = shortened(update, longest)
    lengths = short.square().mean((1, 2, 3)).sqrt()
    assert (lengths <= longest * (1 + 1e-9)).all()
    for before, after in zip(update, short, strict=True):
        if before.square().mean().sqrt() <= longest:
            assert torch.equal(before, after)
        else:
            torch.testing.assert_close(after / after.norm(), before / before.norm())


@pytest.mark.parametrize("prediction", sorted(PREDICTIONS))
def test_eta_one_is_the_guidance_and_scale_one_the_conditional_model(prediction):
    backend = mixture(DiscreteSchedule.linear(), prediction)
    for stack, same in (([APG(CFG(5.0), eta=1.0)], [CFG(5.0)]), ([APG(CFG(1.0))], [])):
        one, other = (Sampler(backend, s, num_inference_steps=4).sample(1).x for s in (stack, same))
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_it_asks_no_more_than_the_guidance():
    sampler = Sampler(mixture(), [APG(CFG(4.0, interval=(0.0, 0.5)))], num_inference_steps=10)
    stats = sampler.sample(1).stats
    assert (stats.evaluated, stats.calls) == (5 * 1 + 5 * 2, 10)


def test_inside_an_anagram_it_projects_in_each_view_before_the_inverse():
    backend, t = mixture(), 0.1
    views = Anagram({"identity": 0, "flip": 1})
    alone = Sampler(backend, [APG(CFG(7.0))])
    one, other = alone.denoise(X, t, 0).x0, alone.denoise(X.flip(-2), t, 1).x0.flip(-2)
    sampler = Sampler(backend, [views, APG(CFG(7.0))], num_inference_steps=3)
    inside = sampler.denoise(X, t)
    torch.testing.assert_close(inside.x0, (one + other) / 2)
    stats = sampler.sample().stats
    assert (stats.evaluated, stats.calls) == (3 * 4, 3)
    around = Sampler(backend, [APG(CFG(7.0)), views]).denoise(X, t)
    mean = Sampler(backend, [views]).denoise(X, t).x0
    assert ((around.x0 - mean) * mean).sum((1, 2, 3)).abs().max() < 1e-9
    assert (around.x0 - inside.x0).abs().max() > 1e-3


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
def test_where_there_is_nothing_to_guide_x_comes_back(schedule):
    """Over f(x) = x both branches agree; the answer is a clean image, and the same one."""
    backend, t = IdentityBackend((1, 8, 8), schedule), schedule.time_at(0.5)
    made = Sampler(backend, [APG(CFG(3.0))]).denoise(X, t, 1)
    torch.testing.assert_close(made.x0, Sampler(backend).denoise(X, t, 1).x0)


def test_it_leaves_the_law():
    """A lawful guidance is affine in its scale; with a threshold this is not."""
    plugins = {s: APG(CFG(s), norm_threshold=0.05) for s in (1.0, 3.0, 5.0)}
    x0 = {s: Sampler(mixture(), [p]).denoise(X, 0.1, 1).x0 for s, p in plugins.items()}
    assert (x0[3.0] - (x0[1.0] + x0[5.0]) / 2).abs().max() > 1e-3


def test_it_is_in_the_recipe():
    plugin = APG(CFG(5.0), 0.25, 0.5)
    again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
    assert (again.eta, again.norm_threshold, again.guidance.scale) == (0.25, 0.5, 5.0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((3.0,), TypeError),
        ((CFG(2.0), math.nan), ValueError),
        ((CFG(2.0), 0.0, 0.0), ValueError),
        ((CFG(2.0), 0.0, "1"), TypeError),
    ],
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="APG: "):
        APG(*arguments)
