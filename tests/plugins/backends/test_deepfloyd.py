"""The DeepFloyd IF backend: equal to diffusers' pipelines, and to loops written from the papers."""

import pytest
import torch
from diffusers import (
    IFImg2ImgPipeline,
    IFInpaintingPipeline,
    IFPipeline,
)
from tiny_if import assert_equal, computing, exact, in_both_precisions

from composer import UNCONDITIONAL, Request, Sampler
from composer.model import evaluated
from composer_plugins import CFG, Anagram, GaussianBlur, Hybrid, Inpaint, SDEdit, Timesteps
from composer_plugins.backends.deepfloyd import load_deepfloyd
from composer_plugins.solvers.timesteps import presets

PROMPT = "a photo of a cat"
OTHER = "an oil painting of a snowman"
BATCH = (3, 0, 11)


@pytest.fixture(scope="module")
def pipeline(tiny_if, precision):
    loaded = IFPipeline.from_pretrained(
        tiny_if[1], safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    return exact(loaded, precision)


@pytest.fixture(scope="module")
def backend(tiny_if, precision, tmp_path_factory):
    file = tmp_path_factory.mktemp("embeddings") / "cache.safetensors"
    return computing(load_deepfloyd(tiny_if[1], embeddings=file), precision)


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def reference(pipeline, seeds, **options):
    """What a pipeline makes, each image from its own generator."""
    return pipeline(
        [PROMPT] * len(seeds),
        generator=generators(seeds),
        output_type="pt",
        clean_caption=False,
        **options,
    ).images


def as_kind(pipeline, kind):
    return exact(kind(**pipeline.components, requires_safety_checker=False), pipeline.dtype)


def picture(seed, batch=1, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, size, size, generator=generator) * 2 - 1


def test_the_tiny_model_hears_its_prompts(backend):
    """Or equality below would prove little."""
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    requests = [Request(x, 500.0, backend.encode(c)) for c in (PROMPT, OTHER, UNCONDITIONAL)]
    with torch.no_grad():
        outputs = evaluated(backend, requests)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for part in (0, 1):
            assert (outputs[one][part] - outputs[other][part]).abs().max() > 0.05


@in_both_precisions
@pytest.mark.parametrize("seeds", [(7,), BATCH])
@pytest.mark.parametrize("scale", [1.0, 2.5, 7.0])
@pytest.mark.parametrize("steps", [2, 9])
def test_guided_sampling_is_the_pipeline_s(pipeline, backend, steps, scale, seeds):
    theirs = reference(pipeline, seeds, num_inference_steps=steps, guidance_scale=scale)
    ours = Sampler(backend, [CFG(scale)], num_inference_steps=steps).sample(PROMPT, seeds)
    assert_equal(ours.x, theirs)
    assert ours.stats.calls == steps


@in_both_precisions
@pytest.mark.parametrize("preset", ["fast27", "super27"])
def test_presets_of_times_are_the_pipeline_s(pipeline, backend, preset, monkeypatch):
    """They begin at 999, where alpha is 5e-5 and an error in epsilon is 20000 times one in x_0.

    The scheduler's numbers are in float64: in float32 1 - alphas_cumprod keeps half of its digits
    at the last times of fast27, which alone moves the pipeline's images by 1.4e-5.
    """
    alphas_cumprod = pipeline.scheduler.alphas_cumprod.double()
    monkeypatch.setattr(pipeline.scheduler, "alphas_cumprod", alphas_cumprod)
    theirs = reference(pipeline, BATCH, timesteps=presets()[preset])
    sampler = Sampler(backend, [CFG(7.0)], Timesteps(preset), num_inference_steps=27)
    assert_equal(sampler.sample(PROMPT, BATCH).x, theirs)


@in_both_precisions
@pytest.mark.parametrize(("strength", "scale", "seeds"), [(0.7, 10.0, BATCH), (1.0, 1.0, (5,))])
def test_sdedit_is_img2img(pipeline, backend, strength, scale, seeds):
    image = picture(1, len(seeds))
    theirs = reference(
        as_kind(pipeline, IFImg2ImgPipeline),
        seeds,
        image=image,
        strength=strength,
        num_inference_steps=8,
        guidance_scale=scale,
    )
    stack = [SDEdit(image, strength), CFG(scale)]
    ours = Sampler(backend, stack, num_inference_steps=8).sample(PROMPT, seeds).x
    assert_equal(ours, theirs)


@in_both_precisions
@pytest.mark.parametrize(("strength", "seeds"), [(1.0, BATCH), (0.6, (5,))])
def test_inpainting_from_the_noised_image_is_the_pipeline_s(pipeline, backend, strength, seeds):
    """It starts where img2img does, also at strength 1: SDEdit in front says so."""
    image, mask = picture(2), torch.zeros(16, 16)
    mask[3:12, 5:] = 1
    theirs = reference(
        as_kind(pipeline, IFInpaintingPipeline),
        seeds,
        image=image.expand(len(seeds), -1, -1, -1),
        mask_image=mask[None, None],
        strength=strength,
        num_inference_steps=8,
    )
    stack = [SDEdit(image, strength), Inpaint(image, mask, "clean"), CFG(7.0)]
    ours = Sampler(backend, stack, num_inference_steps=8).sample(PROMPT, seeds).x
    assert_equal(ours, theirs)
    assert torch.equal(ours[..., mask == 0], image.expand_as(ours)[..., mask == 0])


def loop(pipeline, seed, steps, estimate):
    """The usual loop: epsilon and variance by ``estimate``, a step by the scheduler."""
    (generator,) = generators([seed])
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 3, 16, 16, generator=generator, dtype=pipeline.dtype)
    for t in scheduler.timesteps:
        x = scheduler.step(estimate(x, t), t, x, generator=generator).prev_sample
    return x


def guided(pipeline, x, t, prompt, scale=7.0):
    """uncond + scale (cond - uncond), and cond's variance: two forwards of one row each."""
    cond, uncond = pipeline.encode_prompt(prompt)
    rows = [pipeline.unet(x, t, encoder_hidden_states=e).sample for e in (uncond, cond)]
    (without, _), (with_it, variance) = (row.split(3, 1) for row in rows)
    return without + scale * (with_it - without), variance


@in_both_precisions
@torch.no_grad()
def test_a_two_view_anagram_is_the_usual_loop(pipeline, backend):
    """Geng et al. 2024: views turned back, then the mean of noises and of variances."""

    def estimate(x, t):
        upright = guided(pipeline, x, t, PROMPT)
        turned = [part.flip(-2) for part in guided(pipeline, x.flip(-2), t, OTHER)]
        return torch.cat([(a + b) / 2 for a, b in zip(upright, turned, strict=True)], 1)

    stack = [Anagram({"identity": PROMPT, "flip": OTHER}), CFG(7.0)]
    ours = Sampler(backend, stack, num_inference_steps=8).sample(seeds=[5])
    assert_equal(ours.x, loop(pipeline, 5, 8, estimate))
    assert ours.stats.rows == 4 * 8


@in_both_precisions
@torch.no_grad()
def test_a_hybrid_is_the_usual_loop(pipeline, backend):
    """Geng et al. 2024: low frequencies of one noise, high ones of the other, mean variance."""
    blur = GaussianBlur(8.0)  # in pixels of 64: 2 pixels here

    def estimate(x, t):
        low, variance = guided(pipeline, x, t, PROMPT)
        high, other_variance = guided(pipeline, x, t, OTHER)
        noise = blur(low) + high - blur(high)
        return torch.cat([noise, (variance + other_variance) / 2], 1)

    stack = [Hybrid(PROMPT, OTHER, sigma=8.0), CFG(7.0)]
    ours = Sampler(backend, stack, num_inference_steps=8).sample(seeds=[5])
    assert_equal(ours.x, loop(pipeline, 5, 8, estimate))
    assert ours.stats.rows == 3 * 8  # the unconditional row is shared


def test_thresholding_is_exact_at_the_noisiest_time(backend):
    """Through epsilon, x_0 would come back with an error of 1e-7 / 5e-5."""
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert backend.schedule.at(999.0)[0] < 1e-4
    thresholded = Sampler(backend, [CFG(7.0)]).denoise(x, 999.0, PROMPT)
    with torch.no_grad():
        cond, uncond = (
            evaluated(backend, [Request(x, 999.0, backend.encode(c))])[0].prediction
            for c in (PROMPT, UNCONDITIONAL)
        )
    alpha, sigma = backend.schedule.at(999.0)
    x0 = ((x - sigma * (uncond + 7 * (cond - uncond))) / alpha).flatten(1)
    s = torch.quantile(x0.abs(), 0.95, dim=1, keepdim=True).clamp(1, 1.5)
    torch.testing.assert_close(thresholded.x0.flatten(1), x0.clamp(-s, s) / s)


def test_one_forward_a_step_and_the_bound_of_rows(backend):
    stack = [Anagram({"identity": PROMPT, "rotate_180": OTHER}), CFG(7.0)]
    whole = Sampler(backend, stack, num_inference_steps=2).sample(seeds=BATCH)
    cut = Sampler(backend, stack, num_inference_steps=2, max_rows=4).sample(seeds=BATCH)
    assert (whole.stats.calls, cut.stats.calls) == (2, 6)
    assert_equal(cut.x, whole.x)


def test_prompts_are_the_same_objects_and_none_is_the_empty_one(backend):
    kept = backend.encode("A photo of a CAT ")
    assert kept == PROMPT
    assert backend.encode(kept) is kept
    assert backend.encode(UNCONDITIONAL) == backend.encode("") == ""
    with pytest.raises(ValueError, match="must be a prompt, a string, got 7"):
        Sampler(backend, [Anagram({"identity": 7})])


def test_out_of_memory_names_the_bound_to_lower(backend, monkeypatch):
    def exhausted(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0")

    monkeypatch.setattr(backend.unet, "forward", exhausted)
    with pytest.raises(torch.OutOfMemoryError, match="6 images .* Set Sampler.max_rows=3"):
        Sampler(backend, [CFG(7.0)]).sample(PROMPT, BATCH)
    with pytest.raises(torch.OutOfMemoryError, match="dtype='bfloat16' or offload=True"):
        Sampler(backend).sample(PROMPT)
