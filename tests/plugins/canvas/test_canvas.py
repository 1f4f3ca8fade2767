"""A canvas: the law, its closed form, and diffusers' MultiDiffusion."""

import copy
import dataclasses
import itertools
import pickle

import pytest
import torch
from conftest import mixture
from diffusers import DDIMScheduler, StableDiffusionPanoramaPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_latent import load

import composer
from composer import Sampler
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM
from composer.testing import (
    GaussianMixtureBackend,
    IdentityBackend,
    OrthogonalCodecBackend,
    check_backend,
)
from composer_plugins import CFG, Anagram, Canvas, Hybrid, Inpaint, Regions, SDEdit
from composer_plugins.canvas.crops import crops, starts

SIDES = st.tuples(st.integers(1, 12), st.integers(0, 30)).map(lambda s: (s[0], s[0] + s[1]))


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=100)
@given(
    SIDES,
    SIDES,
    st.floats(0, 0.95),
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from(["flat", "smooth"]),
)
def test_the_windows_sum_to_one(tall, wide, overlap, wraps, window):
    (h, height), (w, width) = tall, wide
    made = crops((height, width), (h, w), overlap, wraps, window)
    canvas = torch.zeros(height, width, dtype=torch.float64)
    for crop in made:
        assert crop.window.shape == (h, w)
        assert (crop.window > 0).all()
        crop.add_to(canvas, crop.window)
    torch.testing.assert_close(canvas, torch.ones_like(canvas), rtol=0, atol=1e-12)


@settings(max_examples=100)
@given(SIDES, st.floats(0, 0.95), st.booleans())
def test_neighbours_share_at_least_the_overlap(sides, overlap, around):
    length, side = sides
    places = starts(side, length, around, overlap)
    gaps = [b - a for a, b in itertools.pairwise(places)]
    gaps += [side - places[-1]] if around else []
    assert places[0] == 0
    assert around or places[-1] == side - length
    # Even spacing rounds each place to a pixel.
    assert all(length - gap >= overlap * length - 1 for gap in gaps)


@settings(max_examples=15)
@given(
    st.integers(8, 21),
    st.integers(8, 21),
    st.floats(0, 0.8),
    st.sampled_from(["none", "horizontal", "both"]),
    st.sampled_from(["flat", "smooth"]),
)
def test_it_obeys_the_law(height, width, overlap, wrap, window):
    """Over f(x) = x, under a stack, the canvas's answer is x itself."""
    x = noise(2, 1, height, width)
    backend = Canvas(IdentityBackend((1, 8, 8)), (height, width), overlap, wrap, window)
    stack = [Anagram({"identity": Hybrid(1, 2), "rotate_180": 3}), CFG(4.0)]
    torch.testing.assert_close(Sampler(backend, stack).denoise(x, 0.3).prediction, x)


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
@pytest.mark.parametrize("wrap", ["none", "horizontal", "both"])
def test_over_a_model_of_single_pixels_it_is_the_larger_model(schedule, wrap):
    """A Gaussian of equal, independent pixels: the model of a crop is the crop of the model."""
    small, large = (
        GaussianMixtureBackend(torch.full((1, 1, *size), 0.4), [0.3], schedule=schedule)
        for size in ((8, 8), (12, 27))
    )
    made = Sampler(Canvas(small, (12, 27), wrap=wrap), num_inference_steps=5).sample(0, [1, 2])
    torch.testing.assert_close(made.x, Sampler(large, num_inference_steps=5).sample(0, [1, 2]).x)


@pytest.mark.parametrize("circular", [False, True])
def test_it_is_diffusers_panorama(tiny_latent, tmp_path, circular, monkeypatch):
    pipeline, folder = tiny_latent("sd2")
    backend = load(folder, tmp_path / "x.safetensors")
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    parts = {**pipeline.components, "scheduler": scheduler}
    theirs = StableDiffusionPanoramaPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    own = theirs.get_views
    monkeypatch.setattr(  # whose windows are of 64 latents, and whose latents of 8 pixels
        theirs,
        "get_views",
        lambda h, w, circular_padding: own(4 * h, 4 * w, 8, 4, circular_padding),
    )
    start = torch.randn(1, *backend.shape[:2], 24, generator=torch.Generator().manual_seed(5))
    made = theirs(
        "a cat",
        height=16,
        width=48,
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=start,
        circular_padding=circular,
        output_type="latent",
    ).images
    wrap = "horizontal" if circular else "none"
    canvas = Canvas(backend, (16, 48), 0.5, wrap, window="flat")
    sampler = Sampler(canvas, [CFG(4.0)], num_inference_steps=3)
    assert len(canvas.crops) == (6 if circular else 5)
    states = [state.x for state in sampler.stream("a cat", x=start)]
    torch.testing.assert_close(states[-1], canvas.decode(made), rtol=0, atol=1e-4)


def test_the_network_s_rows_are_counted_and_bounded():
    canvas = Canvas(mixture(), (8, 20))  # starts at 0, 4, 8, 12
    for bound, calls in ((None, 1), (5, 4), (1, 16)):
        sampler = Sampler(canvas, [CFG(3.0)], num_inference_steps=2, max_rows=bound)
        made = sampler.sample(1, seeds=[0, 1])
        assert made.stats.rows == 2 * 2 * 2 * 4
        assert made.stats.calls == 2 * calls
        assert made.stats.evaluated == 4
        torch.testing.assert_close(
            made.x, Sampler(canvas, [CFG(3.0)], num_inference_steps=2).sample(1, seeds=[0, 1]).x
        )


def test_the_largest_call_has_as_many_rows_as_allowed(monkeypatch):
    sizes, own = [], GaussianMixtureBackend.evaluate
    monkeypatch.setattr(
        GaussianMixtureBackend,
        "evaluate",
        lambda self, batch: sizes.append(len(batch)) or own(self, batch),
    )
    canvas = Canvas(mixture(), (8, 20))
    Sampler(canvas, [CFG(3.0)], num_inference_steps=1, max_rows=3).sample(1)
    assert sizes == [3, 3, 2]


def test_guidance_and_views_of_the_whole_canvas_commute():
    canvas, views = Canvas(mixture(), (8, 20), 0.4), Anagram({"identity": 0, "rotate_180": 1})
    inside, around = (
        Sampler(canvas, stack, num_inference_steps=4).sample(seeds=[2]).x
        for stack in ([views, CFG(3.0)], [CFG(3.0), views])
    )
    torch.testing.assert_close(inside, around)


def test_a_panorama_has_no_seam():
    """Crops evenly spaced: a canvas turned by their stride is made of noise turned by it."""
    canvas = Canvas(mixture(), (8, 16), 0.5, "horizontal")
    sampler = Sampler(canvas, num_inference_steps=4)
    x = noise(1, 1, 8, 16)
    start = sampler.times[0]
    made = sampler.sample(1, x=x, t=start).x
    turned = sampler.sample(1, x=x.roll(4, -1), t=start).x
    torch.testing.assert_close(turned, made.roll(4, -1))


def test_editing_works_on_the_whole_canvas():
    image, mask = noise(1, 1, 8, 20).clamp(-1, 1), torch.zeros(8, 20)
    mask[:, 10:] = 1
    stack = [SDEdit(image, 0.7), Inpaint(image, mask)]
    made = Sampler(Canvas(mixture(), (8, 20)), stack, num_inference_steps=6).sample(1).x
    torch.testing.assert_close(made[..., :10], image[..., :10])
    assert (made - image)[..., 10:].abs().max() > 0.1


@pytest.mark.parametrize("wrap", ["none", "horizontal", "both"])
def test_latents_are_cut_on_their_grid(wrap):
    """With an exact coder the canvas of latents is the canvas of pixels, cut at even places."""
    pixels = mixture(shape=(1, 8, 8))
    latents = OrthogonalCodecBackend(pixels)
    over_pixels, over_latents = (
        Canvas(backend, (8, 20), 0.5, wrap, "flat") for backend in (pixels, latents)
    )
    assert over_latents.shape == (4, 4, 10)
    assert over_latents.image_shape == (1, 8, 20)
    images = noise(2, 1, 8, 20)
    z = over_latents.encode_image(images)
    torch.testing.assert_close(over_latents.decode(z), images)
    t = 0.3
    one = Sampler(over_pixels).denoise(images, t, 1).x0
    other = over_latents.decode(Sampler(over_latents).denoise(z, t, 1).x0)
    assert [c.columns[0] * 2 for c in over_latents.crops] == [
        c.columns[0] for c in over_pixels.crops
    ]
    torch.testing.assert_close(one, other)
    finished = Sampler(over_latents, num_inference_steps=2).sample(1).x
    assert finished.shape == (1, 1, 8, 20)


def test_the_autoencoder_sees_a_panorama_continued():
    """A coder that looks around sees no border where the canvas wraps."""

    @dataclasses.dataclass(frozen=True, eq=False, repr=False)
    class Blurring(OrthogonalCodecBackend):
        def decode(self, z):
            padded = torch.nn.functional.pad(z, (1, 1, 0, 0))
            return super().decode((padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / 3)

    canvas = Canvas(Blurring(mixture()), (8, 20), wrap="horizontal")
    z = noise(1, 4, 4, 10)
    torch.testing.assert_close(canvas.decode(z.roll(3, -1)), canvas.decode(z).roll(6, -1))


def test_it_passes_the_kit_of_backends():
    check_backend(Canvas(mixture(), (12, 20), wrap="both"), conditions=[1, 2])


def test_a_network_that_shares_work_on_an_image_knows_the_crops_apart(tiny_mnist):
    shared, alone = (
        Sampler(
            Canvas(dataclasses.replace(tiny_mnist, share=share), (28, 40), wrap="horizontal"),
            [CFG(3.0)],
            num_inference_steps=2,
        )
        .sample(1, seeds=[0, 1])
        .x
        for share in (True, False)
    )
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-4)


def test_it_copies():
    canvas = Canvas(mixture(), (8, 20))
    sampler = Sampler(canvas, num_inference_steps=2)
    expected = sampler.sample(1).x
    for again in (copy.deepcopy(canvas), pickle.loads(pickle.dumps(canvas))):
        assert torch.equal(Sampler(again, num_inference_steps=2).sample(1).x, expected)


def test_a_canvas_of_a_loaded_model_is_in_the_recipe():
    canvas = Canvas(composer.load_backend("mnist"), (28, 42), overlap=0.25, wrap="horizontal")
    result = Sampler(canvas, num_inference_steps=1).sample(3)
    assert result.recipe["backend"]["name"] == "canvas"
    again = Sampler.from_recipe(result.recipe)  # the shipped model needs no trust
    assert torch.equal(again.sample(**composer.call_of(result.recipe)).x, result.x)
    other = Sampler(Canvas(composer.load_backend("mnist-ddpm"), (28, 42)), num_inference_steps=1)
    recipe = other.sample(3).recipe
    assert Sampler.from_recipe(recipe, trust=["model"]).sample(3).recipe == recipe


def test_a_recipe_names_it():
    backend = composer.load_backend("canvas", size=(28, 40), overlap=0.25, wrap="horizontal")
    result = Sampler(backend, [CFG(2.0)], num_inference_steps=1).sample(3)
    again = Sampler.from_recipe(result.recipe, trust=True)
    assert torch.equal(again.sample(**composer.call_of(result.recipe)).x, result.x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (8, 7)}, "Canvas: size must be multiples of 1 and at least the model's 8"),
        ({"size": 20}, r"Canvas: size must be \(height, width\)"),
        ({"size": (8, 20, 3)}, r"Canvas: size must be \(height, width\)"),
        ({"size": (8, 10**9)}, "Canvas: size must be at most .* pixels, got 8x1000000000"),
        ({"size": (99, 9999), "overlap": 0.9}, "Canvas: size and overlap must make at most"),
        ({"overlap": 1.0}, r"Canvas: overlap must be in \[0, 1\)"),
        ({"wrap": "vertical"}, "Canvas: wrap must be"),
        ({"window": "hann"}, "Canvas: window must be"),
    ],
)
def test_bad_arguments_raise(change, message):
    with pytest.raises(ValueError, match=message):
        Canvas(**{"inner": mixture(), "size": (8, 20), **change})


def test_its_words_are_short_after_a_run():
    canvas = Canvas(mixture(), (8, 20))
    before = repr(canvas)
    Sampler(canvas, [Regions((1, 2))], num_inference_steps=1).sample()
    assert repr(canvas) == before


def test_options_of_the_model_that_are_no_dict_raise():
    with pytest.raises(TypeError, match="canvas: options must be a dict of the model's options"):
        composer.load_backend("canvas", options=["weights"])


def test_latents_need_multiples_of_the_factor():
    with pytest.raises(ValueError, match="Canvas: size must be multiples of 2"):
        Canvas(OrthogonalCodecBackend(mixture()), (8, 21))


def test_its_solver_is_the_model_s():
    assert Canvas(mixture(), (8, 8)).default_solver == mixture().default_solver
    assert Sampler(Canvas(mixture(), (8, 8)), solver=DDIM(), num_inference_steps=2).sample(1)
