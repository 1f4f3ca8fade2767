"""Specks, counted as SciPy counts connected groups."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import composer
from composer import Sampler
from composer_lab.evaluation.anagrams import STEEP, anagram_stack
from composer_lab.evaluation.specks import INK, MOST, specks
from composer_plugins import CFG, Anagram, Climb, ReadsAs
from composer_plugins.backends.mnist.data import sample_digits


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6), st.integers(5, 28), st.integers(5, 28))
def test_as_many_small_groups_as_scipy_finds(seed, share, height, width):
    generator = torch.Generator().manual_seed(seed)
    ink = torch.rand(3, 1, height, width, generator=generator) < share
    x = torch.where(ink, INK + 0.01, INK - 0.01)
    expected = []
    for image in ink[:, 0].numpy():
        groups, _ = ndimage.label(image, np.ones((3, 3)))
        sizes = np.bincount(groups.ravel())[1:]
        expected.append(int((sizes <= MOST).sum()))
    assert specks(x).tolist() == expected


def test_digits_have_none_and_a_dot_is_one():
    images, _ = sample_digits()
    assert specks(images).sum() <= 1  # of 300
    dotted = images.clone()
    dotted[..., :4, :4] = -1.0
    dotted[..., 1, 1:3] = 1.0
    assert (specks(dotted) - specks(images)).float().mean() > 0.99  # where no ink is near
    assert specks(torch.full((2, 1, 28, 28), -1.0)).tolist() == [0, 0]


def test_the_default_leaves_digits_that_read_well_without_specks():
    """A 6 that is a 9 when turned needs no steering; steps of full length draw specks all the
    same, about one an image."""
    backend, views = composer.load_backend("mnist"), {"identity": 6, "rotate_180": 9}
    _, default, *_ = anagram_stack(views)
    assert default.steep == STEEP > 0
    found = []
    for steer in (Climb(ReadsAs(views, "all", 0)), default):
        stack = [steer, Anagram(views), CFG(3.0, (0.7, 1.0))]
        found.append(
            specks(Sampler(backend, stack, num_inference_steps=4).sample(seeds=range(8)).x)
        )
    assert found[0].sum() >= 4
    assert found[1].sum() <= 1
