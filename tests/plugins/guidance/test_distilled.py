"""DistilledGuidance: the scale of a guidance-distilled model, a number an image."""

import pytest
import torch
from conftest import mixture
from tiny_latent import SIZE, load

from composer import Sampler
from composer_plugins import CFG, DistilledGuidance

PROMPT, SEEDS = "a photo of a cat", (3, 11)


@pytest.fixture(scope="module")
def folder(tiny_latent):
    return tiny_latent("flux-dev")


@pytest.fixture(scope="module")
def backend(folder, tmp_path_factory):
    return load(folder[1], tmp_path_factory.mktemp("embeddings") / "x.safetensors")


def sample(backend, *plugins, seeds=SEEDS):
    return Sampler(backend, plugins, num_inference_steps=2).sample(PROMPT, seeds)


@pytest.mark.parametrize("scale", [1.0, 3.5, 7.0])
def test_it_is_the_pipeline_s_scale(folder, backend, scale):
    pipeline, _ = folder
    image = pipeline(
        [PROMPT] * 2,
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        guidance_scale=scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
    ).images
    ours = sample(backend, DistilledGuidance(scale))
    torch.testing.assert_close(ours.x.clamp(-1, 1), image * 2 - 1, rtol=0, atol=1e-5)
    assert ours.stats.rows == 4  # one an image and step


def test_each_seed_has_its_own(backend):
    both = sample(backend, DistilledGuidance([1.0, 7.0]), CFG(2.0)).x
    tensor = DistilledGuidance(torch.tensor([1.0, 7.0], dtype=torch.float64))
    assert torch.equal(sample(backend, tensor, CFG(2.0)).x, both)
    for k, scale in enumerate((1.0, 7.0)):
        alone = sample(backend, DistilledGuidance(scale), CFG(2.0), seeds=SEEDS[k : k + 1]).x
        torch.testing.assert_close(both[k : k + 1], alone, rtol=0, atol=1e-5)
    assert (both[0] - sample(backend, DistilledGuidance(7.0), CFG(2.0)).x[0]).abs().max() > 1e-3


def test_without_it_the_model_s_own_holds(folder, backend, tmp_path):
    other = load(folder[1], tmp_path / "x.safetensors", guidance=7.0)
    assert torch.equal(sample(other).x, sample(backend, DistilledGuidance(7.0)).x)
    assert torch.equal(sample(backend).x, sample(backend, DistilledGuidance(3.5)).x)


def test_other_models_take_none():
    with pytest.raises(ValueError, match="DistilledGuidance: the model must take a scale .* CFG"):
        Sampler(mixture(), [DistilledGuidance(3.5)])


def test_two_scales_for_three_seeds(backend):
    with pytest.raises(ValueError, match="DistilledGuidance: scale must be .* 3 in all, got 2"):
        sample(backend, DistilledGuidance([1.0, 2.0]), seeds=(0, 1, 2))


@pytest.mark.parametrize("scale", [float("nan"), "3", [], [1.0, None], None])
def test_scales_that_are_none(scale):
    with pytest.raises((TypeError, ValueError), match="DistilledGuidance: scale must be"):
        DistilledGuidance(scale)
