"""Stage III, a latent upscaler: equal to StableDiffusionUpscalePipeline, and last in a cascade."""

import json
import shutil
from functools import partial

import pytest
import torch
from conftest import mixture
from diffusers import StableDiffusionUpscalePipeline
from tiny_if import computing, cut, empty, exact, rewrite
from tiny_upscaler import SIZE

import composer
from composer import Request, Sampler
from composer.model import evaluated
from composer.solvers import DDIM, DPMSolverPP
from composer_plugins import (
    CFG,
    Anagram,
    Cascade,
    Components,
    DynamicThreshold,
    GrayColour,
    Hybrid,
    Inpaint,
    Stage,
    SuperResolution,
)
from composer_plugins.backends.deepfloyd import load_deepfloyd

PROMPT, OTHER = "a photo of a cat", "an oil painting of a snowman"
SMALL = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
BATCH = (3, 11)
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def pipeline(tiny_upscaler):
    pipeline = exact(StableDiffusionUpscalePipeline.from_pretrained(tiny_upscaler))
    pipeline.low_res_scheduler.alphas_cumprod = pipeline.low_res_scheduler.alphas_cumprod.double()
    pipeline.scheduler.final_alpha_cumprod = pipeline.scheduler.final_alpha_cumprod.double()
    return pipeline


@pytest.fixture(scope="module")
def backend(tiny_upscaler, tmp_path_factory):
    file = tmp_path_factory.mktemp("embeddings") / "cache.safetensors"
    made = computing(load_deepfloyd(tiny_upscaler, stage=3, size=SIZE, embeddings=file))
    made.autoencoder.vae.double()
    return made


def reference(pipeline, seeds, **options):
    """The pipeline, which would draw its latents after the small image's noise."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents = [torch.randn(1, 4, 32, 32, generator=g, dtype=torch.float64) for g in generators]
    return pipeline(
        prompt=[PROMPT] * len(seeds),
        image=SMALL[: len(seeds)].double() / 2 + 0.5,
        generator=generators,
        latents=torch.cat(latents),
        **options,
    ).images


def test_the_tiny_model_hears_its_prompts_and_sees_its_image(backend):
    """Or equality below would prove little."""
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def answer(prompt, low, level):
        beside = {"low_res": low.double(), "noise_level": torch.tensor([level])}
        request = Request(x, 500.0, backend.encode(prompt), beside=beside)
        return evaluated(backend, [request])[0][0]

    with torch.no_grad():
        base = answer(PROMPT, SMALL[:1], 20.0)
        for other in (
            answer(OTHER, SMALL[:1], 20.0),
            answer(PROMPT, SMALL[1:], 20.0),
            answer(PROMPT, SMALL[:1], 90.0),
        ):
            assert (base - other).abs().max() > 0.01


@pytest.mark.parametrize(
    ("steps", "scale", "level", "seeds"), [(5, 9.0, 20, BATCH), (3, 1.0, 350, (5,))]
)
def test_it_is_the_pipeline_s(pipeline, backend, steps, scale, level, seeds):
    options = {"num_inference_steps": steps, "guidance_scale": scale, "noise_level": level}
    images = reference(pipeline, seeds, output_type="pt", **options)
    stack = [SuperResolution(SMALL[: len(seeds)], level), CFG(scale)]
    ours = Sampler(backend, stack, num_inference_steps=steps).sample(PROMPT, seeds)
    assert ours.x.shape == (len(seeds), 3, 64, 64)
    assert ours.images[0].size == (64, 64)
    assert images.std() > 0.05
    torch.testing.assert_close((ours.x / 2 + 0.5).clamp(0, 1), images, **TOLERANCE)
    assert ours.stats.calls == steps


def test_before_decoding_it_is_the_pipeline_s_too(pipeline, backend):
    latents = reference(
        pipeline, BATCH, output_type="latent", num_inference_steps=4, guidance_scale=9.0
    )
    stack = [SuperResolution(SMALL, 20), CFG(9.0)]
    *_, before_last, last = Sampler(backend, stack, num_inference_steps=4).stream(PROMPT, BATCH)
    assert before_last.x.shape == (2, 4, 32, 32)
    torch.testing.assert_close(last.x, backend.decode(latents), **TOLERANCE)


def test_the_solvers_of_the_library_agree_with_its_scheduler(backend):
    """DDIM goes to the clean latents, the pipeline's stops at time 0 and leaves noise of 1%."""
    stack = [SuperResolution(SMALL, 20), CFG(3.0)]
    own, ddim, fine = (
        [*Sampler(backend, stack, solver, n).stream(PROMPT, BATCH)]
        for solver, n in ((None, 6), (DDIM(), 6), (DPMSolverPP(), 6))
    )
    torch.testing.assert_close(own[-2].x, ddim[-2].x, **TOLERANCE)
    assert (own[-1].x - ddim[-1].x).abs().max() < 0.1
    assert torch.isfinite(fine[-1].x).all()


def test_images_are_decoded_one_by_one_and_each_has_its_own_noise(backend):
    both = Sampler(backend, [SuperResolution(SMALL, 20), CFG(3.0)], None, 2).sample(PROMPT, BATCH)
    alone = Sampler(backend, [SuperResolution(SMALL[1:], 20), CFG(3.0)], None, 2, max_rows=1)
    torch.testing.assert_close(alone.sample(PROMPT, BATCH[1:]).x, both.x[1:], **TOLERANCE)


@pytest.mark.parametrize(
    "plugin",
    [
        Anagram({"identity": PROMPT, "flip": OTHER}),
        DynamicThreshold(),
    ],
)
def test_what_looks_at_pixels_raises(backend, plugin):
    with pytest.raises(ValueError, match=r"works on pixels .* latents, .*plain=True"):
        Sampler(backend, [SuperResolution(SMALL), plugin])


@pytest.mark.parametrize(
    "plugin", [Hybrid(PROMPT, OTHER), Components(GrayColour(), (PROMPT, OTHER))]
)
def test_a_hybrid_works_in_its_pixels(backend, plugin):
    """Of one prompt twice it is the plain image, through decoder and encoder and back."""
    same = Sampler(backend, [SuperResolution(SMALL, 20), Hybrid(PROMPT, PROMPT)], None, 2)
    plain = Sampler(backend, [SuperResolution(SMALL, 20)], None, 2).sample(PROMPT, BATCH)
    torch.testing.assert_close(same.sample(seeds=BATCH).x, plain.x, **TOLERANCE)
    mixed = same.replace(plugins=[SuperResolution(SMALL, 20), plugin]).sample(seeds=BATCH)
    assert mixed.stats.rows == 2 * plain.stats.rows
    assert (mixed.x - plain.x).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("plugins", "sentence"),
    [
        ([SuperResolution(SMALL, 351)], r"noise_level must be in \[0, 350\], got 351"),
        ([SuperResolution(SMALL[:, :1])], r"must have .*3 channel\(s\), got 1"),
        ([], "enlarges an image and got none"),
    ],
)
def test_images_and_levels_that_do_not_fit_raise(backend, plugins, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(backend, plugins).sample(PROMPT)


def test_what_is_known_of_the_large_image_is_kept_to_the_pixel(backend):
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    mask = torch.zeros(64, 64)
    mask[:, 20:] = 1
    stack = [SuperResolution(SMALL[:1], 20), Inpaint(image, mask)]
    x = Sampler(backend, stack, num_inference_steps=2).sample(PROMPT).x[0]
    assert torch.equal(x[:, :, :20], image[:, :, :20].double())
    assert (x - image)[:, :, 20:].abs().max() > 0.1


def test_three_stages_in_one_call(tiny_if, tiny_upscaler, backend, tmp_path):
    """The stack in two stages, the last one plain; as by hand."""
    file = tmp_path / "t5.safetensors"
    first, second = (load_deepfloyd(tiny_if[s], stage=s, embeddings=file) for s in (1, 2))
    hybrid = Hybrid(PROMPT, OTHER)
    cascade = Cascade(
        [
            Stage(first, [CFG(7.0)], num_inference_steps=2),
            Stage(second, [CFG(4.0)], num_inference_steps=2),
            Stage(
                backend,
                [CFG(9.0)],
                num_inference_steps=2,
                enlarge=partial(SuperResolution, noise_level=100),
                plain=True,
            ),
        ],
        plugins=[hybrid],
    )
    results = cascade.sample(seeds=BATCH)
    assert [result.x.shape[-1] for result in results] == [16, 32, 64]
    assert [result.condition for result in results] == [None, None, OTHER]
    by_hand = Sampler(backend, [SuperResolution(results[1].x, 100), CFG(9.0)], None, 2)
    torch.testing.assert_close(results[2].x, by_hand.sample(OTHER, BATCH).x)
    (chosen,) = cascade.enlarge(results[1], [11])
    torch.testing.assert_close(chosen.x, results[2].x[1:], **TOLERANCE)


def test_a_recipe_loads_it_again(tiny_upscaler, tmp_path):
    options = {"stage": 3, "size": SIZE, "embeddings": str(tmp_path / "x.safetensors")}
    backend = composer.load_backend("deepfloyd", model=str(tiny_upscaler), **options)
    result = Sampler(backend, [SuperResolution(SMALL[:1]), CFG(3.0)], None, 2).sample(PROMPT)
    recipe = json.loads(json.dumps(result.recipe))
    again = Sampler.from_recipe(recipe, trust=True).sample(**composer.call_of(recipe))
    assert torch.equal(again.x, result.x)


def test_half_precision_is_near_and_decodes_in_float32(tiny_upscaler, tmp_path):
    file = tmp_path / "x.safetensors"
    exactly, half = (
        load_deepfloyd(tiny_upscaler, stage=3, size=SIZE, embeddings=file, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    assert (half.unet.dtype, half.autoencoder.vae.dtype) == (torch.bfloat16, torch.float32)
    stack = [SuperResolution(SMALL[:1]), CFG(3.0)]
    near, far = (Sampler(b, stack, None, 2).sample(PROMPT).x for b in (exactly, half))
    assert 0 < (near - far).abs().max() < 0.2
    assert near.dtype == far.dtype == torch.float32


def test_offload_brings_layers_of_both_networks_to_the_device(tiny_upscaler, tmp_path):
    load = partial(
        load_deepfloyd, tiny_upscaler, stage=3, size=SIZE, embeddings=tmp_path / "x.safetensors"
    )
    plain, offloaded = load(), load(offload=True)
    assert offloaded.unet.conv_in.weight.device.type == "meta"
    assert offloaded.autoencoder.vae.decoder.conv_in.weight.device.type == "meta"
    stack = [SuperResolution(SMALL[:1]), CFG(3.0)]
    images = [Sampler(b, stack, num_inference_steps=2).sample(PROMPT).x for b in (plain, offloaded)]
    assert torch.equal(*images)


def test_sizes(tiny_upscaler, tmp_path):
    load = partial(load_deepfloyd, tiny_upscaler, stage=3, embeddings=tmp_path / "x.safetensors")
    assert load().image_shape == (3, 1024, 1024)
    assert load(size=40).shape == (4, 20, 20)
    with pytest.raises(ValueError, match="size must be a multiple of 4, got 42"):
        load(size=42)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (empty("vae"), r"has no vae/config.json"),
        (cut("vae/diffusion_pytorch_model.safetensors"), "vae cannot be read"),
        (empty("low_res_scheduler"), "low_res_scheduler/scheduler_config.json"),
        (
            lambda folder: rewrite(folder / "unet" / "config.json", out_channels=6),
            "must be a stage of IF .* with 7 in and 6 out",
        ),
    ],
)
def test_what_lacks_or_is_damaged_is_said(tiny_upscaler, tmp_path, spoil, sentence):
    folder = shutil.copytree(tiny_upscaler, tmp_path / "upscaler")
    spoil(folder)
    with pytest.raises(ValueError, match=sentence):
        load_deepfloyd(folder, stage=3, embeddings=tmp_path / "x.safetensors")


def test_stages_are_told_apart(tiny_upscaler, tiny_if, tmp_path):
    with pytest.raises(ValueError, match="got stage 3. Load it with stage=3"):
        load_deepfloyd(tiny_upscaler, embeddings=tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="got stage 2. Load it with stage=2"):
        load_deepfloyd(tiny_if[2], stage=3, embeddings=tmp_path / "x.safetensors")


def test_a_wrong_stack_raises_before_the_first_stage_runs(backend):
    with pytest.raises(ValueError, match="stage 2: Anagram works on pixels"):
        Cascade(
            [Stage(mixture(shape=(3, 32, 32))), Stage(backend)],
            [Anagram({"identity": None, "flip": None})],
        )
