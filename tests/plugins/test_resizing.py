"""Plugins, images, masks and views at another size."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from composer.authoring import resized, resized_image, resized_mask
from composer.testing import registered_transforms
from composer_plugins import (
    CFG,
    Anagram,
    Components,
    Hybrid,
    Inpaint,
    KnownPixels,
    LanPaint,
    Reference,
    SDEdit,
    TripleHybrid,
)
from composer_plugins.cascade.same_view import check_same_view
from composer_plugins.transforms import Permutation


def covered(small, large, place):
    """The pixels, of ``small`` in a row, that pixel ``place`` of ``large`` lies on."""
    return range(math.floor(place * small / large), math.ceil((place + 1) * small / large))


@given(old=st.integers(1, 12), new=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_mask_is_the_mean_of_what_is_covered(old, new, seed):
    mask = torch.rand(old, old, generator=torch.Generator().manual_seed(seed)).round()
    made = resized_mask(mask, new, new, "mask")
    for i, j in itertools.product(range(new), repeat=2):
        below = mask[list(covered(old, new, i))][:, list(covered(old, new, j))]
        assert abs(made[i, j] - below.mean()) < 1e-6
        assert (made[i, j] == 0) == bool((below == 0).all())
        assert (made[i, j] == 1) == bool((below == 1).all())


@given(old=st.integers(1, 24), factor=st.integers(1, 4), seed=st.integers(0, 99))
def test_an_image_is_averaged_when_shrunk_and_keeps_its_colours(old, factor, seed):
    image = torch.rand(2, 3, old, old, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    large = image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    torch.testing.assert_close(resized_image(large, old, old, "image"), image)
    enlarged = resized_image(image, old * factor, old * factor, "image")
    assert (enlarged <= image.amax((-2, -1), keepdim=True) + 1e-6).all()
    assert (enlarged >= image.amin((-2, -1), keepdim=True) - 1e-6).all()


def test_an_image_is_enlarged_about_the_middles_of_pixels():
    """A ramp stays a ramp, and what is enlarged lies where it was: no half pixel is lost."""
    middles = (torch.arange(8) + 0.5) / 8
    ramp = (2 * middles - 1).expand(1, 8, 8)
    made = resized_image(ramp, 32, 32, "image")[0, 0, 0]
    inner = slice(2, -2)  # beyond the outermost middles there is nothing to go on
    torch.testing.assert_close(made[inner], (2 * (torch.arange(32) + 0.5) / 32 - 1)[inner])


@pytest.mark.parametrize("resize", [resized_image, resized_mask])
def test_proportions_are_kept(resize):
    picture = Image.new("L", (12, 8))  # width, height
    made = resize(picture, 16, 24, "it")  # a mask's numbers, but a picture remains one
    assert made.size == (24, 16) if resize is resized_image else made.shape == (16, 24)
    with pytest.raises(
        ValueError, match="it must have the proportions of 16x16, got 8x12. Crop it"
    ):
        resize(picture, 16, 16, "it")


IMAGE, MASK = torch.zeros(3, 16, 16), torch.zeros(16, 16)
KNOWN = KnownPixels(MASK)


@pytest.mark.parametrize(
    "plugin",
    [
        SDEdit(IMAGE, i_start=3),
        Inpaint(IMAGE, MASK, "repaint", 3, 4),
        LanPaint(IMAGE, MASK, 3, 0.2),
        Reference(IMAGE, KNOWN, 1),
    ],
)
def test_images_and_masks_are_resized_and_nothing_else(plugin):
    made = resized(plugin, 8, 8)
    assert made is not plugin
    for name, value in vars(plugin).items():
        now = getattr(made, name)
        if isinstance(value, torch.Tensor):
            assert now.shape[-2:] == (8, 8)
        elif value is KNOWN:
            assert now.mask.shape == (8, 8)
        else:
            assert now == value


def test_known_pixels_are_those_of_which_all_is_known():
    mask = torch.zeros(4, 4)
    mask[0, 0] = 1
    assert torch.equal(resized(KnownPixels(mask), 2, 2).mask, torch.tensor([[1.0, 0], [0, 0]]))


@pytest.mark.parametrize(
    ("make", "conditions"),
    [
        (lambda c: Anagram({"identity": c, "flip": 2}), (8, 2)),
        (lambda c: Hybrid(1, c, 3.0), (1, 8)),
        (lambda c: TripleHybrid(1, 2, c, (3.0, 4.0)), (1, 2, 8)),
        (lambda c: Components(KNOWN, (c, 2)), (8, 2)),
    ],
)
def test_what_stands_in_place_of_a_condition_is_resized_with_it(make, conditions):
    class Nested:
        def resized(self, height, width):
            return height

    made = resized(make(Nested()), 8, 8)
    assert tuple(made.conditions) == conditions
    assert getattr(made, "sigma", 3.0) == 3.0
    assert getattr(made, "sigmas", (3.0, 4.0)) == (3.0, 4.0)


def test_what_is_of_no_size_is_left_as_it_is():
    plugin = CFG(3.0)
    assert resized(plugin, 8, 8) is plugin
    assert resized(Inpaint, 8, 8) is Inpaint  # a class, which is refused elsewhere


@pytest.mark.parametrize(("small", "large"), [(64, 256), (28, 56), (16, 32)])
def test_every_registered_view_is_the_same_at_the_sizes_of_a_cascade(small, large):
    """But for grids that small images have no room for, and large ones have."""
    finer = {
        64: set(),
        28: {"pixel_permute", "patch_permute", "detail_negative"},
        16: {"pixel_permute"},
    }
    for name, view in registered_transforms().items():
        if name in finer[small]:
            with pytest.raises(
                ValueError, match=f"must be the same view at .* as at {small}x{small}"
            ):
                check_same_view(view, (3, small, small), view, (3, large, large))
        else:
            check_same_view(view, (3, small, small), view, (3, large, large))


def enlarged(x, factor):
    return x.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


BLOCKS = ["flip", "rotate_cw", "negative", "patch_permute", "pixel_permute"]


@pytest.mark.parametrize("name", BLOCKS)
def test_views_by_blocks_commute_with_enlarging_exactly(name):
    view = registered_transforms()[name]
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(view(enlarged(x, 4)), enlarged(view(x), 4))


@given(height=st.integers(1, 6), width=st.integers(1, 6), factor=st.integers(1, 4))
def test_a_permutation_of_one_s_own_moves_blocks_in_larger_images(height, width, factor):
    generator = torch.Generator().manual_seed(height)
    x = torch.randn(1, 3, height, width, generator=generator)
    view = Permutation(torch.randperm(height * width, generator=generator))
    larger = resized(view, height * factor, width * factor)
    assert torch.equal(larger(enlarged(x, factor)), enlarged(view(x), factor))
    # Within a block nothing changes its place.
    inside = torch.arange(factor**2).reshape(1, 1, factor, factor).repeat(1, 1, height, width)
    assert torch.equal(larger(inside), inside)


def test_a_permutation_is_left_alone_where_it_does_not_fit():
    view = Permutation((2, 0, 3, 1))
    assert resized(view, 3, 3) is view
    assert resized(Anagram({"identity": 1, view: 2}), 3, 3).transforms[1] is view
    assert len(resized(Anagram({"identity": 1, view: 2}), 4, 4).transforms[1].indices) == 16


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_the_bands_of_a_hybrid_are_the_same_at_every_size(sigma):
    """A picture enlarged and filtered is the filtered one enlarged, but for the pixels' edges."""
    plugin = Hybrid(1, 2, sigma)
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    large = x.repeat_interleave(4, -1).repeat_interleave(4, -2)
    for part, bound in zip(plugin.parts, (0.05, 0.05), strict=True):
        gap = torch.nn.functional.avg_pool2d(part(large), 4) - part(x)
        assert gap.pow(2).mean().sqrt() < bound * x.std()
