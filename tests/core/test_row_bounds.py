"""max_rows: a number, no bound, or "auto", which shapes alone decide."""

import math

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler
from composer.batch import Batch
from composer.row_bounds import PIXELS, rows_in_a_call
from composer_plugins import CFG, Anagram, Hybrid

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def batch_of(images, each, height, width):
    """Rows of so many images, as many of each, request by request as guidance has them."""
    rows = images * each
    x = torch.empty(rows, 1, height, width, device="meta")
    numbers = tuple(range(images)) * each
    return Batch(x, (0.5,) * rows, (None,) * rows, numbers, (None,) * rows)


SIZES = st.integers(1, 300)


@given(st.integers(1, 300), st.integers(1, 12), SIZES, SIZES)
def test_auto_is_whole_images_within_a_number_of_pixels(images, each, height, width):
    """At least one image; as few calls as that allows, and none much smaller than the others."""
    bound = rows_in_a_call("auto", batch_of(images, each, height, width), CPU)
    together = bound // each
    assert bound == together * each
    assert 1 <= together <= images
    pixels = each * height * width
    assert together == 1 or together * pixels <= PIXELS
    calls = math.ceil(images / together)
    fewer = math.ceil(images / (calls - 1)) if calls > 1 else 0
    assert calls == 1 or fewer * pixels > PIXELS
    assert images - (calls - 1) * together > 0


@given(st.integers(1, 300), st.integers(1, 12), SIZES, SIZES, st.integers(1, 5000))
def test_on_a_device_auto_is_no_bound_and_what_is_said_is_kept(images, each, height, width, most):
    batch = batch_of(images, each, height, width)
    assert rows_in_a_call("auto", batch, CUDA) == images * each
    for device in (CPU, CUDA):
        assert rows_in_a_call(None, batch, device) == images * each
        assert rows_in_a_call(most, batch, device) == most


class Counting:
    """A mixture of large images, which counts the rows of its calls."""

    def __init__(self, shape):
        self.inner, self.rows = mixture(shape=shape), []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def evaluate(self, batch):
        self.rows.append(len(batch))
        return self.inner.evaluate(batch)


@pytest.mark.parametrize(
    "plugins",
    [
        [Anagram({"identity": 0, "rotate_180": 1}), CFG(2.0)],
        [Hybrid(0, Anagram({"identity": 1, "flip": 2}))],
    ],
)
def test_auto_changes_no_image_beyond_rounding_and_is_the_default(plugins):
    backend = Counting((1, 64, 64))
    sampler = Sampler(backend, plugins, num_inference_steps=2)
    assert sampler.max_rows == "auto"
    each = 4 if len(plugins) == 2 else 3
    chosen = sampler.sample(seeds=range(6))
    assert max(backend.rows) == 8  # rows of 64 x 64 pixels are PIXELS
    assert sum(backend.rows) == 6 * each * 2
    backend.rows.clear()
    whole = sampler.replace(max_rows=None).sample(seeds=range(6))
    assert backend.rows == [6 * each] * 2
    torch.testing.assert_close(chosen.x, whole.x)
    assert torch.equal(sampler.sample(seeds=range(6)).x, chosen.x)


@pytest.mark.parametrize("max_rows", ["auto", 3, None])
def test_a_recipe_says_what_was_given(max_rows):
    sampler = Sampler(mixture(), max_rows=max_rows)
    recipe = sampler.sample(1).recipe
    assert recipe["max_rows"] == max_rows
    assert Sampler.from_recipe(recipe, backend=mixture()).max_rows == max_rows


@pytest.mark.parametrize("wrong", ["Auto", "8", "", 0, -1, 2.5, True, [8]])
def test_what_is_no_bound_is_an_error(wrong):
    with pytest.raises((ValueError, TypeError), match="max_rows must be"):
        Sampler(mixture(), max_rows=wrong)
