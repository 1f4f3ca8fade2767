"""Specks, counted as SciPy counts connected groups."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from composer_lab.evaluation.specks import INK, MOST, specks
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
