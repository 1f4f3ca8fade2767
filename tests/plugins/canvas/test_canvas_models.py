"""A canvas over each family of models: of their own size it is the model, and larger it runs."""

import pytest
import torch

import composer
from composer import Sampler
from composer.latents import image_shape_of
from composer_plugins import CFG, Canvas, Regions
from composer_plugins.backends.deepfloyd import load_deepfloyd
from composer_plugins.backends.latent import load_latent


def deepfloyd(request, folder):
    return load_deepfloyd(
        request.getfixturevalue("tiny_if")[1], embeddings=folder / "x.safetensors"
    )


def latent(request, folder):
    _, saved = request.getfixturevalue("tiny_latent")("sd3")
    return load_latent(saved, size=16, embeddings=folder / "x.safetensors")


def prx(request, folder):
    tiny_prx = pytest.importorskip("tiny_prx", exc_type=ImportError)
    tiny_prx.build(folder / "prx")
    return composer.load_backend("prx", model=folder / "prx", embeddings=folder / "x.safetensors")


def nouns(request, folder):
    return composer.load_backend("nouns")  # the shipped one


MODELS = {  # its make, and two of its conditions
    deepfloyd: ("a cat", "a dog"),
    latent: ("a cat", "a dog"),
    nouns: ("panda", "robot"),
    prx: ("a cat", "a dog"),
}


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def family(request, tmp_path_factory):
    """A model, and two conditions."""
    return request.param(request, tmp_path_factory.mktemp("model")), MODELS[request.param]


def test_a_canvas_of_the_model_s_size_is_the_model(family):
    """Hooks of the model included, such as IF's thresholding and a decoder."""
    model, conditions = family
    canvas = Canvas(model, image_shape_of(model)[1:])
    assert len(canvas.crops) == 1
    one, other = (
        Sampler(backend, [CFG(3.0)], num_inference_steps=2).sample(conditions[0], seeds=[1]).x
        for backend in (model, canvas)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bootstrap", [None, (0.8, 1.0)], ids=["plain", "bootstrapped"])
def test_a_panorama_of_two_prompts(family, bootstrap):
    """Of the two steps the first is bootstrapped, with encoded backgrounds over latents."""
    model, conditions = family
    channels, height, width = image_shape_of(model)
    canvas = Canvas(model, (height, 2 * width), wrap="horizontal")
    stack = [Regions(conditions, bootstrap=bootstrap), CFG(3.0)]
    made = Sampler(canvas, stack, num_inference_steps=2).sample(seeds=[1])
    assert made.x.shape == (1, channels, height, 2 * width)
    assert made.x.isfinite().all()
    halves = made.x.split(width, -1)
    assert (halves[0] - halves[1]).abs().max() > 1e-3
