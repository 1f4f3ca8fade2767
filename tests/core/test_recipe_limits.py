"""Small recipes that ask for all time or all memory raise one sentence, and soon."""

import base64
import json
import random
import struct
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pytest
import torch
from conftest import mixture
from fuzz_recipes import cached, old_recipes, outcome, spoilt
from hypothesis import given
from hypothesis import strategies as st

import composer
from composer import Sampler
from composer.limits import (
    MAX_DEPTH,
    MAX_LISTS,
    MAX_OBJECTS,
    MAX_SETTING,
    MAX_STEPS,
    MAX_TEXT,
    MAX_TEXTS,
    MAX_VALUES,
)
from composer.recipes.bounds import size_of
from composer_plugins import Bands, FeynmanKac, Inpaint, Langevin, LanPaint, Particles

PLAIN = json.loads((Path(__file__).parent / "recipes_0_1" / "plain.json").read_text())
SECONDS = 5.0
"""A sentence takes at most about one, alone on a machine; tests share theirs."""
MEGABYTES = 100


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *more, scan=None):
    """A grey PNG; ``more`` stands before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packed = zlib.compress(bytes((width + 1) * height) if scan is None else scan, 9)
    parts = (b"\x89PNG\r\n\x1a\n", head, *more, chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return {"image": base64.b64encode(b"".join(parts)).decode()}


def plugins(*listed):
    return {**PLAIN, "plugins": [{"plugin": name, "options": options} for name, options in listed]}


def scheduled(name, **config):
    scheduler = {"scheduler": name, "config": config}
    return {**PLAIN, "solver": {"solver": "diffusers", "options": {"scheduler": scheduler}}}


def viewed(view):
    return plugins(("anagram", {"views": {"pairs": [[view, 1]]}}))


def nested(levels, inner):
    for _ in range(levels):
        inner = [inner]
    return inner


FLIP = {"transform": "flip", "options": {}}
SCORE = {"score": "reads_as", "options": {"views": {"pairs": [["identity", 3]]}}}
ZIPPED = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(60 * 10**6), 9))
HUGE = chunk(b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 0, 0, 0, 0))
SMALL = png(28, 28)


def recipes():
    """Name: recipe, none of them above a few megabytes but the lists and names."""
    large = png(4096, 4096)
    bands = {"decomposition": "bands", "options": {"sigmas": [1.0] * 300}}
    composed = {"transform": "composed", "options": {"transforms": [FLIP] * 100_000}}
    inpaint = {"image": SMALL, "mask": SMALL, "mode": "repaint", "resamples": 10**9}
    yield "steps", {**PLAIN, "num_inference_steps": 10**8}
    yield "train times", scheduled("DDIMScheduler", num_train_timesteps=10**8)
    yield "train times as a fraction", scheduled("EulerDiscreteScheduler", num_train_timesteps=1e8)
    yield "order", scheduled("UniPCMultistepScheduler", solver_order=10**9)
    yield "betas", scheduled("DDPMScheduler", trained_betas=[0.1] * (MAX_SETTING + 1))
    yield "bands", plugins(("components", {"parts": bands, "conditions": [1] * 301}))
    yield "flips", viewed(composed)
    yield "pictures", plugins(*[("sdedit", {"image": large})] * 40)
    yield "picture", plugins(("sdedit", {"image": png(10**5, 10**5, scan=b"")}))
    yield "second head", plugins(("sdedit", {"image": png(64, 64, HUGE)}))
    yield "texts", plugins(*[("sdedit", {"image": png(29, 29, *[ZIPPED] * 9)})] * 9)
    yield "walks", plugins(("langevin", {"steps": 10**9}))
    yield "candidates", plugins(("feynman_kac", {"score": SCORE, "particles": 10**6}))
    yield "particles", plugins(("particles", {"score": SCORE, "survivors": [[1, 10**6], [0, 1]]}))
    yield "resamples", plugins(("inpaint", inpaint))
    for place in ("plugin", "transform", "unregistered", "scheduler"):
        yield f"name of a {place}", {**PLAIN, "plugins": [{place: "x" * 10**7}]}
    yield "key", {**PLAIN, "plugins": [{"x" * 10**7: 1}]}
    yield "name of a backend", {**PLAIN, "backend": {"name": "x" * 10**7}}
    yield "prompt", {**PLAIN, "call": {"condition": "x" * 10**7, "seeds": [0]}}
    yield "seeds", {**PLAIN, "call": {"condition": None, "seeds": [0] * 10**6}}
    yield "depth", {**PLAIN, "plugins": nested(10**5, 1)}
    yield "depth of a condition", {**PLAIN, "call": {"condition": nested(10**5, 1), "seeds": [0]}}
    yield "depth of an option", {**PLAIN, "backend": {"name": "mnist", "options": nested(10**5, 1)}}
    yield "number", plugins(("cfg", {"scale": 10**5000}))
    yield "numbers", {**PLAIN, "plugins": [0] * (MAX_VALUES + 1)}
    skews = {"transform": "composed", "options": {"transforms": ["skew"] * 10**6}}
    yield "named views", viewed(skews)
    yield (
        "a condition of texts",
        plugins(("anagram", {"views": {"pairs": [["flip", ["a"] * (2 * 10**6)]]}})),
    )
    yield "a call of texts", {**PLAIN, "call": {"condition": ["a"] * (2 * 10**6), "seeds": [0]}}
    yield "numbers and a text", {**PLAIN, "plugins": [[0] * 2_000_000, ["a"] * (MAX_TEXTS + 1)]}
    yield "options", plugins(("cfg", {f"{k}": 1 for k in range(10**6)}))
    yield "conditions", plugins(("conjunction", {"weights": {"pairs": [[1, 1.0]] * 10**5}}))
    yield "backend", {**PLAIN, "backend": nested(10**5, {})}
    yield "version", {**PLAIN, "composer": "9" * 10**7}


@pytest.fixture(scope="module")
def backend():
    return composer.load_backend("mnist")


def read(recipe):
    Sampler.from_recipe(recipe)
    composer.call_of(recipe)


@pytest.mark.parametrize("recipe", [pytest.param(recipe, id=name) for name, recipe in recipes()])
def test_a_small_recipe_of_large_things_is_one_sentence(backend, recipe):
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises((ValueError, TypeError, LookupError)) as caught:
            read(recipe)
        took, memory = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < SECONDS
    assert memory < MEGABYTES * 10**6
    assert len(str(caught.value)) < 1500
    assert str(caught.value).count("\n") == 0
    assert not isinstance(caught.value, KeyError | IndexError)


def test_texts_inside_a_picture_are_not_unpacked(backend):
    """PIL unpacks up to 64 MB of each picture's texts, and keeps them."""
    tracemalloc.start()
    try:
        sampler = Sampler.from_recipe(plugins(("sdedit", {"image": png(28, 28, ZIPPED)})))
        assert tracemalloc.get_traced_memory()[1] < 20 * 10**6
    finally:
        tracemalloc.stop()
    assert sampler.plugins[0].image.size == (28, 28)


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda n: Sampler(mixture(), num_inference_steps=n), MAX_STEPS),
        (Langevin, 1000),
        (lambda n: LanPaint(torch.zeros(1, 8, 8), torch.eye(8), n), 1000),
        (lambda n: Inpaint(torch.zeros(1, 8, 8), torch.eye(8), "repaint", 1, n), 1000),
        (lambda n: FeynmanKac(torch.sum, 1.0, n), 10_000),
        (lambda n: Particles(torch.sum, ((1, n), (0, 1))), 10_000),
        (lambda n: Bands((1.0,) * n), 16),
    ],
    ids=["steps", "Langevin", "LanPaint", "Inpaint", "FeynmanKac", "Particles", "Bands"],
)
def test_constructors_take_no_more_than_the_limit(make, most):
    make(most)
    with pytest.raises(ValueError, match=f"{most}"):
        make(most + 1)


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ([Langevin(1000)], "walks must make a plan of at most"),
        (
            [Inpaint(torch.zeros(1, 8, 8), torch.eye(8), "repaint", 9, 1000)],
            "resamples must make a plan of at most",
        ),
    ],
)
def test_the_plan_of_a_run_is_limited_before_it_is_made(plugins, words):
    sampler = Sampler(mixture(), plugins, num_inference_steps=2000)
    with pytest.raises(ValueError, match=words):
        sampler.sample(1)


def test_a_recipe_of_what_is_used_is_within_the_limits():
    shuffled = list(range(1024 * 1024))
    random.Random(0).shuffle(shuffled)
    size = size_of({**PLAIN, "plugins": [{"transform": "permutation", "options": [shuffled]}]})
    assert size.values > 1024 * 1024
    size_of(nested(MAX_DEPTH - 1, 1))
    size_of([{}] * MAX_OBJECTS)
    size_of([[]] * (MAX_LISTS - 1))
    size_of("x" * MAX_TEXT)
    size_of(["x"] * (MAX_TEXTS - 2) + [{"key": "x"}])
    for recipe in (
        nested(MAX_DEPTH, []),
        [{}] * (MAX_OBJECTS + 1),
        [[]] * MAX_LISTS,
        ["x"] * (MAX_TEXTS + 1),
        ["x"] * (MAX_TEXTS - 1) + [{"key": "x"}],
        [1] * 1000 + [object()],
        [1] * 1000 + ["x", 2**63],
    ):
        with pytest.raises((ValueError, TypeError)):
            size_of(recipe)


def test_a_recipe_that_holds_itself_ends():
    circle = []
    circle.append(circle)
    shared = [[1] * 1000]
    for _ in range(30):
        shared = [shared, shared]
    for recipe in (circle, shared):
        with pytest.raises(ValueError, match="Recipe: it has more than"):
            size_of(recipe)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("beta_schedule", "x"), ("trained_betas", "aaa"), ("num_train_timesteps", -5)],
)
def test_a_setting_that_a_scheduler_does_not_accept_is_named(setting, value):
    words = rf"DDIMScheduler does not accept {setting}={value!r}\. Give a value"
    with pytest.raises(ValueError, match=words) as caught:
        Sampler.from_recipe(scheduled("DDIMScheduler", **{"steps_offset": 1, setting: value}))
    assert "Error" not in str(caught.value)


def test_live_objects_in_a_recipe_raise_and_say_where_they_go():
    with pytest.raises(TypeError, match=r"must be JSON, got .*Pass objects as plugins="):
        Sampler.from_recipe({**PLAIN, "plugins": [Langevin()]})


def test_spoilt_recipes_are_read_or_raise_what_is_documented():
    """A few hundred of those that ``benchmarks/fuzz_recipes.py`` makes, always the same."""
    rng, registry, recipes = random.Random(17), cached(), old_recipes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(600):
            recipe = spoilt(rng.choice(recipes), recipes, rng)
            name, documented = outcome(recipe, registry)
            assert documented, (name, recipe)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=9,
)
KEYS = ("composer", "backend", "plugins", "solver", "num_inference_steps", "max_rows", "call")


@given(st.dictionaries(st.sampled_from(KEYS), json_values), st.booleans())
def test_any_json_is_read_or_raises_what_is_documented(changes, whole):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name, documented = outcome({**PLAIN, **changes} if whole else changes, None)
    assert documented, name
