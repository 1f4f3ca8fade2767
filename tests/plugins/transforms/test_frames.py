"""The way between an image and its view."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import composer
from composer import get_transform
from composer_plugins.transforms import (
    Flip,
    Jigsaw,
    Negative,
    PatchPermute,
    Permutation,
    Roll,
    Rotate180,
    RotateClockwise,
    Skew,
    SquareHinge,
)

NAMES = [name for kind, name in composer.installed().offers if kind == "transform"]
VIEWS = [get_transform(name) for name in NAMES if name not in ("permutation", "orthogonal")]
VIEWS += [Permutation(range(255, -1, -1)), Flip("horizontal"), Jigsaw() @ Roll(), Skew(9, "rows")]


def picture(*lead, size=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*lead, 3, size, size, generator=generator).mul(2).sub(1).to(dtype)


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_frames_begin_and_end_exactly(view):
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        x = picture(2, dtype=dtype)
        assert torch.equal(view.frame(x, 0.0), x)
        assert torch.equal(view.frame(x, 1.0), view(x))


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_frames_keep_shape_type_range_and_argument(view):
    for lead, dtype in (((), torch.float32), ((2, 2), torch.float64), ((1,), torch.bfloat16)):
        x = picture(*lead, dtype=dtype)
        before, most = x.clone(), 1.01 if view(x).abs().max() <= 1 else view(x).abs().max()
        for u in (0.01, 0.25, 0.5, 0.77, 0.999):
            frame = view.frame(x, u)
            assert (frame.shape, frame.dtype) == (x.shape, dtype)
            assert frame.abs().max() <= 2 * most
            assert torch.isfinite(frame).all()
        assert torch.equal(x, before)


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_an_image_of_a_batch_moves_by_itself(view):
    x = picture(3)
    assert torch.allclose(view.frame(x, 0.3)[1], view.frame(x[1], 0.3), atol=1e-6)


@pytest.mark.parametrize("name", ["flip", "rotate_180", "rotate_cw", "jigsaw", "square_hinge"])
def test_frames_arrive_without_a_leap(name):
    """Of a smooth image, the last frame before the end is close to the end."""
    wave = torch.linspace(-1, 1, 64, dtype=torch.float64)
    x = (wave[:, None] * 2 + wave).sin()[None]
    view = get_transform(name)
    assert (view.frame(x, 1e-4) - x).abs().max() < 0.03
    assert (view.frame(x, 1 - 1e-4) - view(x)).abs().max() < 0.03


def test_rotations_turn_the_right_way():
    x = picture(dtype=torch.float64)
    assert torch.allclose(Rotate180().frame(x, 0.5), RotateClockwise()(x), atol=1e-9)
    disc = torch.zeros(1, 65, 65)
    disc[0, 8:13, 30:35] = 1  # above the middle
    weights = RotateClockwise().frame(disc, 0.5)[0]
    row, column = (weights.sum(1) @ torch.arange(65.0), weights.sum(0) @ torch.arange(65.0))
    assert row / weights.sum() < 20  # still above, now to the right
    assert column / weights.sum() > 44


def test_a_card_grows_narrow_and_turns_over():
    x = torch.ones(1, 32, 32)
    x[..., 1:-1, 1:-1] = 0.5
    x[..., 0, :] = x[..., -1, :] = x[..., 0] = x[..., -1] = 1
    x[..., 4, 4] = -1
    narrow = [(Flip().frame(x, u) < 0.9).any(-1).sum().item() for u in (0.1, 0.3, 0.45)]
    assert narrow == sorted(narrow, reverse=True)
    assert (Flip().frame(x, 0.5) == 1).all()


def test_a_negative_fades_through_grey():
    x = picture()
    assert Negative().frame(x, 0.5).abs().max() < 1e-6
    assert torch.allclose(Negative().frame(x, 0.25), x / 2)


def test_rolls_roll_by_a_share_of_their_way():
    x = picture(size=64)
    assert torch.equal(Roll(20, -8).frame(x, 0.25), x.roll((5, -2), (-2, -1)))
    shifted = Skew(63).frame(x, 1 / 3)
    assert torch.equal(shifted[..., -1], x[..., -1].roll(21, -1))


@given(st.floats(0.01, 0.99), st.integers(0, 5))
def test_patches_travel_whole(u, seed):
    """Every pixel of a frame is a pixel of the image or the ground, and patches are unbroken."""
    size = 32
    x = torch.arange(size * size, dtype=torch.float64).reshape(1, size, size)
    frame = PatchPermute(4, seed).frame(x, u)[0]
    right = (frame[:, 1:] - frame[:, :-1]) == 1
    # Of 8 x 8 pixels, 8 x 7 keep their neighbour; the patch that nobody covers shows all of them.
    assert right.sum() >= 56


def test_pieces_of_the_jigsaw_keep_their_size_on_the_way():
    """One white piece among black ones covers the same area all along, where nothing covers it."""
    from composer_plugins.transforms.jigsaw import pieces

    view = Jigsaw()
    last = view.sources[15]  # drawn last, over the others
    x = torch.where(pieces(64) == last, 1.0, -1.0)[None]
    area = [((view.frame(x, u) + 1) / 2).sum().item() for u in (0.0, 0.3, 1.0)]
    assert area[1] == pytest.approx(area[0], rel=0.15)
    assert area[2] == area[0]


def test_left_over_pixels_of_the_hinge_stay():
    x = picture(size=17)
    frame = SquareHinge().frame(x, 0.4)
    assert torch.equal(frame[..., 16], x[..., 16])
    assert torch.equal(frame[..., 15:, :], x[..., 15:, :])
