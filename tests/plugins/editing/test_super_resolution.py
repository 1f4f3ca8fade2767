"""Super-resolution: stage II of DeepFloyd IF, equal to diffusers' pipeline."""

import numpy as np
import pytest
import torch
from conftest import mixture
from diffusers import IFImg2ImgSuperResolutionPipeline, IFSuperResolutionPipeline
from PIL import Image
from tiny_if import assert_equal, computing, exact, in_both_precisions

from composer import Sampler
from composer.images import read_picture, to_tensor
from composer_plugins import CFG, Anagram, Inpaint, SDEdit, SuperResolution
from composer_plugins.backends.deepfloyd import load_deepfloyd

PROMPT = "a photo of a cat"
SMALL = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
BATCH = (3, 0, 11)


@pytest.fixture(scope="module")
def pipeline(tiny_if, precision):
    loaded = IFSuperResolutionPipeline.from_pretrained(
        tiny_if[2], safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    return exact(loaded, precision)


@pytest.fixture(scope="module")
def backend(tiny_if, precision, tmp_path_factory):
    file = tmp_path_factory.mktemp("embeddings") / "cache.safetensors"
    return computing(load_deepfloyd(tiny_if[2], stage=2, embeddings=file), precision)


def reference(pipeline, seeds, **options):
    return pipeline(
        prompt=[PROMPT] * len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pt",
        clean_caption=False,
        **options,
    ).images


@in_both_precisions
@pytest.mark.parametrize(
    ("level", "scale", "steps", "seeds"), [(250, 4.0, 4, BATCH), (100, 1.0, 3, (5,))]
)
def test_it_is_the_pipeline_s(pipeline, backend, level, scale, steps, seeds):
    image = SMALL[: len(seeds)]
    theirs = reference(
        pipeline,
        seeds,
        image=image,
        noise_level=level,
        guidance_scale=scale,
        num_inference_steps=steps,
    )
    stack = [SuperResolution(image, level), CFG(scale)]
    ours = Sampler(backend, stack, num_inference_steps=steps).sample(PROMPT, seeds)
    assert_equal(ours.x, theirs)
    assert ours.x.shape[1:] == (3, 32, 32)
    assert ours.stats.calls == steps


@in_both_precisions
def test_with_sdedit_it_is_img2img(pipeline, backend):
    """The noise of x is drawn first, then that of the low-resolution image, then the steps'."""
    original = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    kind = IFImg2ImgSuperResolutionPipeline
    made = exact(kind(**pipeline.components, requires_safety_checker=False), pipeline.dtype)
    theirs = reference(
        made,
        (5,),
        image=SMALL[:1],
        original_image=original,
        strength=0.7,
        num_inference_steps=6,
        guidance_scale=4.0,
    )
    for stack in (
        [SDEdit(original, 0.7), SuperResolution(SMALL[:1]), CFG(4.0)],
        [CFG(4.0), SuperResolution(SMALL[:1]), SDEdit(original, 0.7)],
    ):
        ours = Sampler(backend, stack, num_inference_steps=6).sample(PROMPT, (5,)).x
        assert_equal(ours, theirs)


@in_both_precisions
@torch.no_grad()
def test_an_anagram_stays_one(pipeline, backend):
    """The low-resolution image is turned with x; the usual loop of Geng et al. 2024."""
    generator = torch.Generator().manual_seed(5)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(4)
    x, noise = torch.randn(2, 1, 3, 32, 32, generator=generator, dtype=pipeline.dtype)
    low = SMALL[:1].to(x)
    low = torch.nn.functional.interpolate(low, (32, 32), mode="bilinear", align_corners=True)
    low = pipeline.image_noising_scheduler.add_noise(low, noise, torch.tensor([250]))

    def guided(x, low, t, prompt):
        outs = [
            pipeline.unet(
                torch.cat([x, low], 1), t, encoder_hidden_states=e, class_labels=torch.tensor([250])
            ).sample
            for e in pipeline.encode_prompt(prompt)
        ]
        cond, uncond = (out[:, :3] for out in outs)
        return torch.cat([uncond + 4 * (cond - uncond), outs[0][:, 3:]], 1)

    for t in scheduler.timesteps:
        turned = guided(-x, -low, t, "a photo of a dog")
        turned = torch.cat([-turned[:, :3], turned[:, 3:]], 1)  # a sign leaves the variance alone
        mean = (guided(x, low, t, PROMPT) + turned) / 2
        x = scheduler.step(mean, t, x, generator=generator).prev_sample

    stack = [
        Anagram({"identity": PROMPT, "negative": "a photo of a dog"}),
        SuperResolution(SMALL[:1]),
        CFG(4.0),
    ]
    ours = Sampler(backend, stack, num_inference_steps=4).sample(seeds=[5]).x
    assert_equal(ours, x)


def test_batches_and_bounds_of_rows(backend):
    stack = [SuperResolution(SMALL), CFG(4.0)]
    whole = Sampler(backend, stack, num_inference_steps=2).sample(PROMPT, BATCH).x
    cut = Sampler(backend, stack, num_inference_steps=2, max_rows=2).sample(PROMPT, BATCH).x
    assert_equal(cut, whole)
    alone = Sampler(backend, [SuperResolution(SMALL[1:2]), CFG(4.0)], num_inference_steps=2)
    assert_equal(alone.sample(PROMPT, BATCH[1:2]).x, whole[1:2])


def test_a_mask_keeps_what_is_known(backend):
    known, mask = torch.zeros(3, 32, 32), torch.zeros(32, 32)
    mask[:, 16:] = 1
    stack = [SuperResolution(SMALL[:1]), Inpaint(known, mask, "clean")]
    x = Sampler(backend, stack, num_inference_steps=2).sample(PROMPT).x
    assert torch.equal(x[..., :16], torch.zeros(1, 3, 32, 16))
    assert (x[..., 16:] != 0).all()


@pytest.mark.parametrize(
    ("size", "fit", "low_resolution"),
    [
        ((16, 24), "crop", (16, 16)),
        ((16, 24), "pad", (24, 24)),
        ((16, 24), "stretch", (24, 24)),
        ((96, 64), "crop", (32, 32)),  # no larger than what is made
    ],
)
def test_pictures_of_any_size_are_enlarged(backend, size, fit, low_resolution):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, size, np.uint8))  # in grey
    fitted = read_picture(picture, (3, *low_resolution), fit)
    if (size, fit) == ((16, 24), "crop"):
        assert torch.equal(fitted[0, 0], to_tensor(picture)[0, 0, :, 4:20])
    plugins = SuperResolution(picture, fit=fit), SuperResolution(fitted)
    by_fit, by_hand = (
        Sampler(backend, [plugin], num_inference_steps=2).sample(PROMPT).x for plugin in plugins
    )
    assert torch.equal(by_fit, by_hand)


def test_stage_two_without_an_image_raises(backend):
    with pytest.raises(ValueError, match=r"got none. Add .*SuperResolution\(image\)"):
        Sampler(backend).sample(PROMPT)


@pytest.mark.parametrize(
    ("plugins", "sentence"),
    [
        ([SuperResolution(SMALL, 1000)], r"noise_level must be in \[0, 999\], got 1000"),
        ([SuperResolution(SMALL, -1)], r"noise_level must be in \[0, 999\]"),
        (
            [SuperResolution(SMALL[:, :1])],
            "image must have the backend's 3 channel.*got 1. Convert it first",
        ),
        ([SuperResolution(SMALL), SuperResolution(SMALL)], "two SuperResolution in one stack"),
    ],
)
def test_what_does_not_fit_raises_when_built(backend, plugins, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(backend, plugins)


def test_a_model_without_low_resolution_raises():
    with pytest.raises(ValueError, match=r"takes no low-resolution image. .* stage=2"):
        Sampler(mixture(), [SuperResolution(SMALL)])


def test_two_images_for_three_seeds_raise(backend):
    with pytest.raises(ValueError, match="SuperResolution: 2 images for 3 seeds"):
        Sampler(backend, [SuperResolution(SMALL[:2])]).sample(PROMPT, BATCH)


def test_what_is_missing_or_would_be_stretched_is_said_before_the_text_encoder_is_read(
    tiny_if, tmp_path, monkeypatch
):
    backend = load_deepfloyd(tiny_if[2], stage=2, embeddings=tmp_path / "x.safetensors")
    monkeypatch.setattr(type(backend.embeddings), "encode", lambda *a: pytest.fail("encoded"))
    with pytest.raises(
        ValueError, match=r"enlarges an image and got none. Add composer_plugins.SuperResolution"
    ):
        Sampler(backend, [CFG(3.0)])
    with pytest.raises(ValueError, match="proportions of 32x32, got 8x16. Give fit="):
        Sampler(backend, [SuperResolution(torch.zeros(3, 8, 16))])
    with pytest.raises(ValueError, match=r"image must have the shape .*, got \(3, 0, 0\)"):
        SuperResolution(torch.zeros(3, 0, 0))
