"""The cascade of DeepFloyd IF, equal to diffusers' pipelines one after the other."""

import json

import pytest
import torch
from cascades import halved, picture
from diffusers import (
    IFImg2ImgPipeline,
    IFImg2ImgSuperResolutionPipeline,
    IFPipeline,
    IFSuperResolutionPipeline,
)
from tiny_if import assert_equal, computing, exact, in_both_precisions

import composer
from composer import Sampler
from composer_plugins import (
    CFG,
    Anagram,
    Cascade,
    Hybrid,
    Inpaint,
    SDEdit,
    Stage,
    SuperResolution,
)
from composer_plugins.backends.deepfloyd import load_deepfloyd

PROMPT = "a photo of a cat"
OTHER = "an oil painting of a snowman"
BATCH = (3, 11)


@pytest.fixture(scope="module")
def models(tiny_if, precision, tmp_path_factory):
    file = tmp_path_factory.mktemp("embeddings") / "cache.safetensors"
    loaded = [load_deepfloyd(tiny_if[s], stage=s, embeddings=file) for s in (1, 2)]
    return [computing(model, precision) for model in loaded]


@pytest.fixture(scope="module")
def parts(tiny_if, precision):
    """The components of diffusers' pipelines, by stage."""
    kinds = {1: IFPipeline, 2: IFSuperResolutionPipeline}
    options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return {
        stage: exact(kind.from_pretrained(tiny_if[stage], **options), precision).components
        for stage, kind in kinds.items()
    }


def reference(kind, components, **options):
    pipeline = kind(**components, requires_safety_checker=False)
    pipeline = exact(pipeline, pipeline.dtype)
    return pipeline(
        prompt=[PROMPT] * len(BATCH),
        generator=[torch.Generator().manual_seed(seed) for seed in BATCH],
        output_type="pt",
        clean_caption=False,
        **options,
    ).images


def if_cascade(models, plugins=()):
    small, large = models
    return Cascade(
        [
            Stage(small, [CFG(7.0)], num_inference_steps=4),
            Stage(large, [CFG(4.0)], num_inference_steps=3),
        ],
        plugins,
    )


@in_both_precisions
def test_deepfloyd_s_is_that_of_the_pipelines(models, parts):
    small = reference(IFPipeline, parts[1], num_inference_steps=4, guidance_scale=7.0)
    large = reference(
        IFSuperResolutionPipeline,
        parts[2],
        image=small,
        num_inference_steps=3,
        guidance_scale=4.0,
        noise_level=250,
    )
    ours = if_cascade(models).sample(PROMPT, BATCH)
    for result, theirs in zip(ours, (small, large), strict=True):
        assert_equal(result.x, theirs)


@in_both_precisions
def test_with_sdedit_it_is_that_of_the_img2img_pipelines(models, parts):
    """The photograph is given once, as large as the last stage."""
    photo = picture(32, 3)
    small = reference(
        IFImg2ImgPipeline,
        parts[1],
        image=halved(photo, 1).expand(2, -1, -1, -1),
        strength=0.7,
        num_inference_steps=4,
        guidance_scale=7.0,
    )
    large = reference(
        IFImg2ImgSuperResolutionPipeline,
        parts[2],
        image=small,
        original_image=photo.expand(2, -1, -1, -1),
        strength=0.7,
        num_inference_steps=3,
        guidance_scale=4.0,
        noise_level=250,
    )
    ours = if_cascade(models, [SDEdit(photo, 0.7)]).sample(PROMPT, BATCH)
    for result, theirs in zip(ours, (small, large), strict=True):
        assert_equal(result.x, theirs)


@pytest.mark.parametrize(
    "plugin",
    [
        Anagram({"identity": PROMPT, "jigsaw": OTHER}),
        Hybrid(PROMPT, Anagram({"identity": PROMPT, "negative": OTHER}), sigma=8.0),
    ],
)
def test_deepfloyd_s_stack_is_the_same_in_both_stages(models, plugin):
    small, large = if_cascade(models, [plugin]).sample(seeds=[3])
    first = Sampler(models[0], [plugin, CFG(7.0)], num_inference_steps=4).sample(seeds=[3])
    stack = [plugin, SuperResolution(first.x), CFG(4.0)]
    second = Sampler(models[1], stack, num_inference_steps=3).sample(seeds=[3])
    assert_equal(small.x, first.x)
    assert_equal(large.x, second.x)


def test_the_recipe_of_each_result_makes_it_again(tiny_if, embedded):
    options = {"embeddings": str(embedded)}
    models = [
        composer.load_backend("deepfloyd", model=str(tiny_if[s]), stage=s, **options)
        for s in (1, 2)
    ]
    mask = torch.zeros(32, 32)
    mask[8:] = 1
    for result in if_cascade(models, [Inpaint(picture(32, 3).float(), mask)]).sample(PROMPT):
        recipe = json.loads(json.dumps(result.recipe))
        again = Sampler.from_recipe(recipe, trust=True).sample(**composer.call_of(recipe))
        assert torch.equal(again.x, result.x)
