"""Permutations of pixels: equal to their definitions, orthogonal, exactly invertible."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler, get_transform
from composer.authoring import check_view
from composer.testing import IdentityBackend
from composer_plugins import CFG, Anagram
from composer_plugins.transforms import (
    InnerCircle,
    Jigsaw,
    PatchPermute,
    Permutation,
    PixelPermutation,
    PixelPermute,
    Roll,
    Shear,
    Skew,
    SquareHinge,
)
from composer_plugins.transforms.jigsaw import KINDS, pieces

NAMES = ["patch_permute", "pixel_permute", "jigsaw", "inner_circle", "square_hinge", "roll"]
NAMES += ["shear", "skew"]
seeds = st.integers(0, 2**31)
made = st.one_of(
    st.builds(PatchPermute, st.integers(2, 9), seeds),
    st.builds(PixelPermute, st.integers(2, 64), seeds),
    st.builds(Jigsaw, seeds),
    st.builds(InnerCircle, st.floats(0.5, 60)),
    st.just(SquareHinge()),
    st.builds(Roll, st.floats(-99, 99), st.floats(-99, 99)),
    st.builds(Skew, st.floats(-99, 99), st.sampled_from(["rows", "columns"])),
    st.builds(Shear, st.floats(-9, 9), st.sampled_from(["rows", "columns"])),
)


def numbered(height, width):
    """An image whose pixels are their own numbers."""
    return torch.arange(height * width, dtype=torch.float64).reshape(1, height, width)


def size_for(view, height, width):
    """A size near (height, width) that the view accepts."""
    sizes = [(height, width), (height, height), (4 * height, 4 * height), (6, 6 * width), (16, 16)]
    return next(size for size in sizes if view.accepts(*size))


@given(made, st.integers(1, 40), st.integers(1, 40))
def test_a_view_is_a_permutation_undone_by_its_inverse(view, height, width):
    x = numbered(*size_for(view, height, width))
    seen = view(x)
    assert torch.equal(seen.flatten().sort().values, x.flatten())
    assert torch.equal(view.inverse(seen), x)
    assert torch.equal(view(view.inverse(x)), x)
    assert torch.equal(x, numbered(*x.shape[-2:]))


@pytest.mark.parametrize("size", [16, 28, 64, 100, 256, 1024])
@pytest.mark.parametrize("name", NAMES)
def test_named_views_work_from_16_to_1024_pixels(name, size):
    view = get_transform(name)
    x = numbered(size, size).float()  # whole numbers to 2^24 are exact
    seen = view(x)
    assert not torch.equal(seen, x)
    assert torch.equal(view.inverse(seen), x)
    assert torch.equal(seen.flatten().sort().values, x.flatten())


@pytest.mark.parametrize("name", NAMES)
def test_the_matrix_is_orthogonal_and_exact(name):
    basis = torch.eye(256, dtype=torch.float64).reshape(-1, 1, 16, 16)
    q = get_transform(name)(basis).flatten(1)
    assert torch.equal(q @ q.T, torch.eye(256, dtype=torch.float64))
    check_view(get_transform(name), IdentityBackend((3, 64, 64)), "Anagram")


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"jigsaw", "square_hinge"}))
def test_images_need_not_be_square(name):
    view, x = get_transform(name), numbered(32, 48)
    assert torch.equal(view.inverse(view(x)), x)


@given(made, st.sampled_from([torch.float16, torch.bfloat16, torch.uint8, torch.bool]))
def test_any_type_and_any_leading_dimensions(view, dtype):
    height, width = size_for(view, 16, 24)
    x = (torch.rand(2, 3, 1, height, width) * 200).to(dtype)
    seen = view(x)
    assert (seen.shape, seen.dtype) == (x.shape, dtype)
    assert torch.equal(seen[1, 2], view(x[1, 2]))


def test_patches_by_a_slow_loop():
    view, x = PatchPermute(8, seed=3), torch.randn(3, 64, 64)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    expected = torch.empty_like(x)
    for patch in range(64):
        row, column = divmod(patch, 8)
        from_row, from_column = divmod(int(order[patch]), 8)
        expected[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = x[
            :, 8 * from_row : 8 * from_row + 8, 8 * from_column : 8 * from_column + 8
        ]
    assert torch.equal(view(x), expected)


@pytest.mark.parametrize("name", ["patch_permute", "pixel_permute", "inner_circle", "jigsaw"])
def test_a_view_is_the_same_at_every_stage_of_a_cascade(name):
    """The view of an enlarged image is the enlarged view, wherever shapes need no rounding."""
    view, x = get_transform(name), torch.randn(1, 64, 64)
    large = x.repeat_interleave(4, -1).repeat_interleave(4, -2)
    seen = view(x).repeat_interleave(4, -1).repeat_interleave(4, -2)
    same = (view(large) == seen).float().mean()
    assert same == 1 if name.endswith("permute") else same > 0.95


def test_every_pixel_moves_by_itself_up_to_64():
    """Of 64 x 64 pixels in a random order, about one keeps its right neighbour."""
    seen = PixelPermute()(numbered(64, 64))
    assert (seen[..., 1:] - seen[..., :-1] == 1).sum() < 10
    blocks = PixelPermute()(numbered(128, 128))
    assert torch.equal(blocks[..., 1::2], blocks[..., ::2] + 1)


def test_the_inner_circle_by_a_slow_loop():
    for size, radius in ((64, 24), (256, 96), (28, 10.5)):
        x, middle = numbered(size, size), (size - 1) / 2
        expected = x.clone()
        for row in range(size):
            for column in range(size):
                if (row - middle) ** 2 + (column - middle) ** 2 < radius**2:
                    expected[:, row, column] = x[:, size - 1 - row, size - 1 - column]
        assert torch.equal(InnerCircle()(x), expected)
    assert torch.equal(InnerCircle(50)(x), x.flip(-2, -1))


def test_the_square_hinge_by_a_slow_loop():
    for size in (64, 28, 17):
        x, side = numbered(size, size), size // 3
        expected = x.clone()
        for i in range(3):
            for j in range(3):
                tile = slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side)
                expected[:, *tile] = torch.rot90(x[:, *tile], -1 if (i + j) % 2 == 0 else 1, (1, 2))
        assert torch.equal(SquareHinge()(x), expected)
    assert torch.equal(expected[:, -2:], x[:, -2:])  # 17 = 3 * 5 + 2


def test_the_shear_is_the_column_loop_of_the_reference():
    for size in (64, 256):
        x = torch.randn(3, size, size)
        expected = x.clone()
        for column in range(size):
            shift = int(1.5 * (column - size / 2))
            expected[..., column] = torch.roll(x[..., column], shift, -1)
        assert torch.equal(Shear(1.5)(x), expected)


@given(st.sampled_from([Skew(50), Shear(1.5), Shear(-0.7)]))
def test_rows_skew_as_columns_of_the_transposed_image(view):
    x = torch.randn(1, 24, 16)
    rows = type(view)(*list(vars(view).values())[:1], axis="rows")
    assert torch.equal(rows(x), view(x.transpose(-1, -2)).transpose(-1, -2))


def test_a_roll_is_stated_at_64_pixels():
    x = torch.randn(1, 128, 64)
    assert torch.equal(Roll(10, -3)(x), x.roll((20, -3), (-2, -1)))
    half = Roll()
    assert torch.equal(half(half(x)), x)


@pytest.mark.parametrize("size", [16, 20, 24, 28, 32, 36, 44, 64, 100, 256])
def test_the_pieces_of_the_jigsaw(size):
    """Sixteen, connected, each with tabs or holes, and equal within a kind up to quarter turns."""
    scipy = pytest.importorskip("scipy.ndimage")
    labels = pieces(size)
    shapes = {}
    for piece, kind in enumerate(KINDS):
        mask = labels == piece
        assert scipy.label(mask.numpy())[1] == 1
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        shape = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        shapes.setdefault(kind, []).append(shape)
        assert not shape.all()
    assert {kind: len(found) for kind, found in shapes.items()} == {"c": 4, "e": 8, "i": 4}
    for found in shapes.values():
        for shape in found:
            assert any(torch.equal(shape.rot90(k), found[0]) for k in range(4))
    # The picture of all pieces is the same after a quarter turn, up to their names.
    turned = labels.rot90()
    assert len(torch.unique(16 * labels + turned)) == 16


@given(seeds)
def test_the_jigsaw_moves_whole_pieces_within_their_kind(seed):
    view, labels = Jigsaw(seed), pieces(32)
    seen = view(labels[None])[0]
    for place, source in enumerate(view.sources):
        assert (seen[labels == place] == source).all()
        assert KINDS[place] == KINDS[source]
    assert sorted(view.sources) == list(range(16))


def test_the_default_jigsaw_leaves_no_piece_in_its_place():
    assert all(place != source for place, source in enumerate(Jigsaw().sources))


def test_neighbours_within_a_piece_stay_neighbours():
    """Rigid motion: within a piece, pixels one apart come from pixels one apart."""
    size, labels = 64, pieces(64)
    source = Jigsaw(5)(numbered(size, size))[0]
    rows, columns = source // size, source % size
    apart = (rows[:, 1:] - rows[:, :-1]).abs() + (columns[:, 1:] - columns[:, :-1]).abs()
    within = labels[:, 1:] == labels[:, :-1]
    assert (apart[within] == 1).all()


def test_seeds_determine_the_order_and_touch_no_global_generator():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    x = numbered(32, 32)
    for view in (PatchPermute, PixelPermute, Jigsaw):
        assert torch.equal(view(seed=1)(x), view(seed=1)(x))
        assert not torch.equal(view(seed=1)(x), view(seed=2)(x))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


@given(st.permutations(range(12)))
def test_your_own_permutation(indices):
    view, x = Permutation(indices), numbered(3, 4)
    assert view(x).flatten().tolist() == indices
    assert view == Permutation(torch.tensor(indices)) == Permutation(np.array(indices))
    assert len({view, Permutation(tuple(indices))}) == 1
    assert torch.equal(view.inverse(view(x)), x)
    assert view.accepts(2, 6)
    assert not view.accepts(3, 3)


def test_what_is_not_a_permutation_raises():
    for indices in ([0, 0, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match="each number from 0"):
            Permutation(indices)
    for indices in ("012", 3, [0.5, 1]):
        with pytest.raises(TypeError, match="Permutation"):
            Permutation(indices)


class Lossy(PixelPermutation):
    """Forgets a pixel."""

    def order(self, height, width):
        return torch.arange(height * width).clamp(min=1)


def test_a_third_partys_order_is_checked():
    with pytest.raises(ValueError, match=r"order\(4, 4\) must be a permutation of 16 pixels"):
        Lossy()(numbered(4, 4))


def test_sizes_that_a_view_does_not_accept_are_named():
    for view, size in ((Jigsaw(), 30), (PatchPermute(), 17), (Permutation([1, 0]), 16)):
        assert not view.accepts(size, size)
        with pytest.raises(ValueError, match=f"accepts {view.sizes}, got {size}x{size}"):
            view(numbered(size, size))
    assert not Jigsaw().accepts(12, 12)
    assert not Jigsaw().accepts(16, 20)
    assert not SquareHinge().accepts(16, 20)


def test_bad_parameters_raise():
    for make in (
        lambda: PatchPermute(1),
        lambda: PatchPermute(seed=-1),
        lambda: InnerCircle(0),
        lambda: Roll(rows=float("nan")),
        lambda: Shear(axis="diagonal"),
        lambda: Skew(axis="diagonal"),
        lambda: Skew(1e300),
        lambda: Shear(-1e300),
        lambda: PatchPermute(seed=2**32),
        lambda: Jigsaw(2**32),
    ):
        with pytest.raises(ValueError, match=":"):
            make()
    with pytest.raises(TypeError, match="PixelPermute: grid must be an integer"):
        PixelPermute(2.5)
    with pytest.raises(TypeError, match="Jigsaw: seed must be an integer"):
        Jigsaw("0")


@pytest.mark.parametrize("name", [*NAMES, "detail_negative"])
def test_over_the_backend_that_returns_x_an_anagram_returns_x(name):
    """The law of composition for every view, with guidance around it."""
    stack = [CFG(3.0), Anagram({"identity": 0, name: 1})]
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    estimate = Sampler(IdentityBackend((1, 16, 16)), stack).denoise(x, 0.3)
    torch.testing.assert_close(estimate.prediction, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_no_view_assumes_a_device(name):
    """Tensors without data stand for another device: mixing devices fails there too."""
    view, x = get_transform(name), torch.empty(2, 3, 32, 32, device="meta")
    for seen in (view(x), view.inverse(x), view.frame(x, 0.4)):
        assert (seen.shape, seen.device) == (x.shape, x.device)


def test_an_order_found_without_gradients_serves_them_later():
    view = PatchPermute(seed=123)
    with torch.inference_mode():
        view(torch.zeros(1, 16, 16))
    x = torch.zeros(1, 16, 16, requires_grad=True)
    weights = numbered(16, 16)
    (view(x) * weights).sum().backward()
    assert torch.equal(x.grad.double(), view.inverse(weights))
