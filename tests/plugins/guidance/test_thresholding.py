"""Dynamic thresholding, against diffusers and against its own definition."""

import pytest
import torch
from conftest import mixture
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import Sampler
from composer._clipping import _upper_quantile
from composer.authoring import dynamic_threshold
from composer.predictions import SAMPLE
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP
from composer.testing import CheckFailed, check_stack
from composer_plugins import CFG, Anagram, DynamicThreshold


def images(seed, spread, batch=3):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(batch, 3, 8, 8, generator=generator, dtype=torch.float64)


@settings(max_examples=20)
@given(st.integers(0, 99), st.floats(0.1, 5), st.floats(0, 1), st.floats(1, 4))
def test_it_is_diffusers_own(seed, spread, percentile, max_value):
    scheduler = DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=max_value
    )
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x0 = images(seed, spread).to(dtype)
        ours = dynamic_threshold(x0, percentile, max_value)
        assert ours.dtype == dtype
        assert torch.equal(ours, scheduler._threshold_sample(x0))


@given(st.integers(0, 99), st.sampled_from([1, 2, 7, 192, 768]), st.floats(0, 1) | st.just(0.95))
def test_the_upper_quantile_is_torch_s(seed, count, q):
    for dtype in (torch.float64, torch.float32):
        x = torch.randn(3, count, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        assert torch.equal(_upper_quantile(x, q), torch.quantile(x, q, dim=1))


@settings(max_examples=20)
@given(st.integers(0, 99), st.floats(0.1, 5), st.floats(0.5, 1))
def test_the_quantile_goes_to_one(seed, spread, percentile):
    x0 = images(seed, spread)
    kept = dynamic_threshold(x0, percentile, max_value=100.0)
    assert kept.abs().max() <= 1
    for before, after in zip(x0, kept, strict=True):
        s = max(1.0, before.abs().quantile(percentile).item())
        inside = before.abs() <= s
        torch.testing.assert_close(after[inside] * s, before[inside])


def test_images_in_range_are_left_alone_and_each_image_has_its_own_threshold():
    x0 = images(0, 1.0).clamp(-1, 1)
    assert torch.equal(dynamic_threshold(x0, 0.9, 2.0), x0)
    loud = torch.cat([x0, 3 * x0])
    assert torch.equal(dynamic_threshold(loud, 0.9, 2.0)[:3], x0)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_the_clean_image_is_exact_also_at_pure_noise(prediction):
    backend = mixture(DiscreteSchedule.linear(), prediction)
    x = 5 * torch.randn(2, 1, 8, 8, dtype=torch.float64)
    for t in (999.0, 500.0, 0.0):
        plain = Sampler(backend, [CFG(6.0)]).denoise(x, t, 1)
        kept = Sampler(backend, [DynamicThreshold(), CFG(6.0)]).denoise(x, t, 1)
        assert torch.equal(kept.x0, dynamic_threshold(plain.x0, 0.95, 1.5))
        alpha, sigma = backend.schedule.at(t)
        torch.testing.assert_close(alpha * kept.x0 + sigma * kept.noise, x)


@pytest.mark.parametrize(
    "solver",
    [DDPM(), DDIM(), DPMSolverPP(), DiffusersSolver(DDPMScheduler(clip_sample=False))],
)
def test_every_solver_ends_in_range(solver):
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    sampler = Sampler(backend, [DynamicThreshold(), CFG(12.0)], solver, num_inference_steps=6)
    result = sampler.sample(1, seeds=[0, 1])
    assert result.x.abs().max() <= 1 + 1e-9
    assert (result.stats.calls, result.stats.evaluated) == (6, 12)
    loud = Sampler(backend, [CFG(12.0)], solver, num_inference_steps=6)
    assert loud.sample(1, seeds=[0, 1]).x.abs().max() > 1.05


def test_a_diffusers_scheduler_that_thresholds_makes_the_same_image():
    """The scheduler's own thresholding, and ours under the same scheduler without."""
    options = {"prediction_type": "sample", "clip_sample": False, "beta_schedule": "linear"}
    theirs = DDPMScheduler(
        **options, thresholding=True, dynamic_thresholding_ratio=0.7, sample_max_value=3.0
    )
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    ours = Sampler(
        backend, [DynamicThreshold(0.7, 3.0)], DiffusersSolver(DDPMScheduler(**options)), 8
    )
    made = Sampler(backend, [], DiffusersSolver(theirs), 8).sample(1, seeds=[3]).x
    torch.testing.assert_close(ours.sample(1, seeds=[3]).x, made)


def test_around_an_anagram_it_sees_the_mean_and_inside_each_view():
    backend = mixture()
    views = Anagram({"identity": 0, "flip": 1})
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    guided = [views, CFG(8.0)]
    mean = Sampler(backend, guided).denoise(x, 0.3).x0
    around = Sampler(backend, [DynamicThreshold(), *guided]).denoise(x, 0.3)
    assert torch.equal(around.x0, dynamic_threshold(mean, 0.95, 1.5))
    inside = Sampler(backend, [views, DynamicThreshold(), CFG(8.0)]).denoise(x, 0.3)
    one = Sampler(backend, [CFG(8.0)]).denoise(x, 0.3, 0).x0
    other = Sampler(backend, [CFG(8.0)]).denoise(x.flip(-2), 0.3, 1).x0
    kept = [dynamic_threshold(part, 0.95, 1.5) for part in (one, other)]
    torch.testing.assert_close(inside.x0, (kept[0] + kept[1].flip(-2)) / 2)
    assert inside.kind is SAMPLE
    assert (inside.x0 - around.x0).abs().max() > 0.01


def test_it_leaves_the_law():
    with pytest.raises(CheckFailed, match="leaves the law"):
        check_stack([DynamicThreshold()], shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((1.5,), ValueError),
        ((-0.1,), ValueError),
        ((0.9, 0.5), ValueError),
        ((0.9, float("inf")), ValueError),
        (("0.9",), TypeError),
    ],
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="DynamicThreshold: "):
        DynamicThreshold(*arguments)
