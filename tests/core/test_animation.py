"""Animations are read back: their frames, their lengths, and what is refused before any work."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from composer import Sampler, Transform, hookimpl
from composer.animation import animate, still
from composer.animation.drawing import MARGIN
from composer.animation.film import Timing
from composer.images import to_pil
from composer.result import Result
from composer.stats import Stats
from composer_plugins import CFG, Anagram, Hybrid
from composer_plugins.transforms import Identity, Jigsaw, Negative, Rotate180, RotateClockwise

BOTH = (Identity(), Rotate180())


def result(count=1, channels=1, size=16, views=BOTH):
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (count, channels, size, size), generator=generator)
    return Result(levels / 127.5 - 1, tuple(range(count)), Stats(), dict, views)


def frames(path):
    """[(picture as an array, milliseconds)] of a GIF."""
    with Image.open(path) as gif:
        return [
            (np.asarray(frame.convert("RGB")), frame.info["duration"])
            for frame in ImageSequence.Iterator(gif)
        ]


def enlarged(x, scale):
    """(C, H, W) as an RGB array."""
    (image,) = to_pil(x[None])
    size = (image.width * scale, image.height * scale)
    return np.asarray(image.resize(size, Image.Resampling.NEAREST).convert("RGB"))


def test_a_gif_goes_from_the_image_to_its_view_and_back(tmp_path):
    shown = result()
    path = shown.animate(tmp_path / "a.gif", fps=20, hold=0.5, move=1.0, scale=3)
    assert path == tmp_path / "a.gif"
    read = frames(path)
    assert len(read) == 2 + 2 * 20
    assert (read[0][0] == enlarged(shown.x[0], 3)).all()
    assert (read[21][0] == enlarged(Rotate180()(shown.x[0]), 3)).all()
    assert [duration for _, duration in read] == [500, *[50] * 20] * 2
    for k in range(1, 21):
        assert (read[k][0] == read[-k][0]).all()
    quarter = Rotate180().frame(shown.x[0], Timing(20, 0.5, 1.0).shares()[4])
    assert (read[5][0] == enlarged(quarter, 3)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_a_gif_repeats_for_ever_and_keeps_its_length(tmp_path):
    """At 30 frames a second a frame is 3.33 hundredths; their sum is right all the same."""
    path = result().animate(tmp_path / "a.gif", fps=30, hold=1, move=2)
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0
    assert sum(duration for _, duration in frames(path)) == 6000


def test_every_view_has_its_turn_and_a_given_one_stands_alone(tmp_path):
    shown = result(views=(Identity(), Rotate180(), Negative()))
    both = frames(shown.animate(tmp_path / "a.gif", fps=10, move=0.5, scale=1))
    assert len(both) == 2 * (2 + 2 * 5)
    assert (both[18][0] == enlarged(-shown.x[0], 1)).all()
    one = frames(shown.animate(tmp_path / "b.gif", "jigsaw", fps=10, move=0.5, scale=1))
    assert len(one) == 12
    assert (one[6][0] == enlarged(Jigsaw()(shown.x[0]), 1)).all()
    same = frames(shown.animate(tmp_path / "c.gif", Jigsaw(), fps=10, move=0.5, scale=1))
    assert all((a[0] == b[0]).all() for a, b in zip(one, same, strict=True))


def test_images_of_a_batch_stand_side_by_side(tmp_path):
    shown = result(count=10)
    first = frames(shown.animate(tmp_path / "a.gif", fps=5, move=0.4, scale=2))[0][0]
    step = 32 + MARGIN
    assert first.shape == (2 * step - MARGIN, 8 * step - MARGIN, 3)
    for k, x in enumerate(shown.x):
        row, column = divmod(k, 8)
        tile = first[row * step : row * step + 32, column * step : column * step + 32]
        assert (tile == enlarged(x, 2)).all()
    assert (first[:, 32 : 32 + MARGIN] == 255).all()


def test_colours_survive_the_palette_of_a_gif(tmp_path):
    smooth = torch.linspace(-1, 1, 32)
    x = torch.stack([smooth.expand(32, 32), smooth[:, None].expand(32, 32), torch.zeros(32, 32)])
    shown = Result(x[None], (0,), Stats(), dict, (Rotate180(),))
    read = frames(shown.animate(tmp_path / "a.gif", fps=5, move=0.4, scale=1))
    assert np.abs(read[0][0].astype(int) - enlarged(x, 1)).mean() < 8


def test_images_without_views_go_far_away(tmp_path):
    shown = result(views=())
    read = frames(shown.animate(tmp_path / "a.gif", fps=10, move=1.0, scale=12))
    assert len(read) == 22
    assert (read[0][0] == enlarged(shown.x[0], 12)).all()
    far = read[11][0]
    drawn = (far != 255).any(-1)
    rows, columns = drawn.any(1).nonzero()[0], drawn.any(0).nonzero()[0]
    assert rows[-1] - rows[0] < 16
    assert columns[-1] - columns[0] < 16
    covered = [(picture != 255).any(-1).sum() for picture, _ in read[:12]]
    assert covered == sorted(covered, reverse=True)


def test_captions_show_while_the_picture_stands(tmp_path):
    path = result().animate(tmp_path / "a.gif", captions=("six", "nine"), fps=10, move=1, scale=8)
    read = [picture[128:] for picture, _ in frames(path)]
    assert read[0].min() < 100
    assert read[11].min() < 100
    assert (read[0] != read[11]).any()
    assert (read[5] == 255).all()
    assert read[0].min() < read[2].min() < 255  # on its way out


@given(st.floats(1, 50), st.floats(0.05, 3))
def test_shares_go_up_evenly_from_both_ends(fps, move):
    shares = Timing(fps, 1.0, move).shares()
    assert len(shares) == max(1, round(fps * move))
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] < 1
    assert shares == pytest.approx([1 - share for share in reversed(shares)])


def test_an_mp4_has_as_many_frames_as_it_lasts(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    shown = result(size=17, channels=3)
    path = shown.animate(tmp_path / "a.mp4", fps=10, hold=0.5, move=1.0, scale=5)
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["fps"] == 10
    assert meta["size"] == (86, 86)  # even, as H.264 wants it
    read = [np.frombuffer(f, np.uint8).reshape(86, 86, 3)[:85, :85] for f in reader]
    assert len(read) == 2 * (5 + 10)
    for k, x in ((0, shown.x[0]), (17, Rotate180()(shown.x[0]))):
        grey = np.asarray(Image.fromarray(enlarged(x, 5)).convert("L")).astype(int)
        seen = np.asarray(Image.fromarray(read[k]).convert("L")).astype(int)
        assert np.abs(seen - grey).mean() < 12
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_without_the_extra_an_mp4_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install 'diffusion-composer\[video\]'"):
        result().animate(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


BAD = [
    ({"path": "a.png"}, ValueError, "must end in .gif or .mp4"),
    ({"path": "a"}, ValueError, "must end in .gif or .mp4"),
    ({"path": "none/a.gif"}, ValueError, "does not exist. Make it first"),
    (
        {"path": "a" * 300 + ".gif"},
        OSError,
        "could not be written .File name too long",
    ),
    ({"fps": 0}, ValueError, "fps must be a positive number"),
    ({"fps": float("nan")}, ValueError, "fps must be finite"),
    ({"fps": "30"}, TypeError, "fps must be a number"),
    ({"fps": 60}, ValueError, "fps of a GIF must be at most 50, got 60"),
    ({"hold": -1}, ValueError, "hold must be 0 to 3600 seconds"),
    ({"hold": 1e9}, ValueError, "hold must be 0 to 3600 seconds"),
    ({"move": 1e12}, ValueError, "move must be at most 3600 seconds"),
    ({"path": "a.mp4", "fps": 1e9}, ValueError, "fps must be at most 240"),
    ({"scale": 10**6}, ValueError, "frames of more than 16777216 pixels. Lower it"),
    ({"captions": None}, TypeError, "captions must be a list of strings"),
    ({"captions": 5}, TypeError, "captions must be a list of strings"),
    ({"move": 0}, ValueError, "move must be a positive number"),
    ({"scale": 0}, ValueError, "scale must be an integer of at least 1"),
    ({"scale": 1.5}, TypeError, "scale must be an integer"),
    ({"view": "flop"}, LookupError, "Did you mean flip"),
    ({"view": 3}, TypeError, "must be a Transform or the name of one, got 3"),
    ({"captions": ("one",)}, ValueError, "captions must be 2"),
    ({"captions": "six"}, TypeError, "captions must be a list of strings"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_arguments_are_refused_before_any_work(options, error, message, tmp_path):
    given = {"path": "a.gif", **options}
    with pytest.raises(error, match=message):
        result().animate(**{**given, "path": tmp_path / given["path"]})
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_written_over(tmp_path):
    (tmp_path / "a.gif").mkdir()
    with pytest.raises(OSError, match="a.gif is a folder. Name a file"):
        result().animate(tmp_path / "a.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_a_view_of_another_size_is_refused(tmp_path):
    shown = Result(torch.zeros(1, 1, 8, 6), (0,), Stats(), dict)
    with pytest.raises(ValueError, match="RotateClockwise.. accepts square images, got 8x6"):
        shown.animate(tmp_path / "a.gif", RotateClockwise())
    with pytest.raises(ValueError, match="1 or 3, H, W"):
        Result(torch.zeros(1, 2, 8, 8), (0,), Stats(), dict).animate(tmp_path / "a.gif")


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(1, 1, 0, 0), ValueError, "must have the shape"),
        (torch.full((1, 1, 4, 4), torch.nan), ValueError, "NaN or Inf"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.complex64), TypeError, "floating-point tensor"),
        ("x", TypeError, "floating-point tensor, got 'x'"),
    ],
)
def test_what_is_no_image_is_refused(x, error, words, tmp_path):
    with pytest.raises(error, match=words):
        animate(x, tmp_path / "a.gif", [Rotate180()])
    assert not list(tmp_path.iterdir())


def test_views_are_told_from_other_things(tmp_path):
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(TypeError, match="views must be a list of transforms"):
        animate(x, tmp_path / "a.gif", Rotate180())


@dataclass(frozen=True)
class Breaks(Transform):
    """Fails on its way."""

    def __call__(self, x):
        return x.flip(-1)

    def inverse(self, x):
        return x.flip(-1)

    def frame(self, x, u):
        if u > 0.5:
            raise RuntimeError("boom")
        return x * (1 - u)


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "a.gif").write_text("old")
    with pytest.raises(RuntimeError, match="boom"):
        result().animate(tmp_path / "a.gif", Breaks())
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]
    assert (tmp_path / "a.gif").read_text() == "old"


class Odd:
    """A third party's plugin whose attribute of that name is something else."""

    def transforms(self):
        raise AssertionError

    @hookimpl
    def post_step(self, state):
        pass


def test_a_wrong_declaration_is_named_before_anything_runs():
    with pytest.raises(TypeError, match="Odd: transforms must be a list or tuple"):
        Sampler(mixture(), [Odd()])


def test_a_result_knows_the_views_of_its_plugins(tmp_path):
    stack = [Anagram({"identity": 0, "rotate_180": 1}), CFG(2.0), Anagram({"rotate_180": 1})]
    sampled = Sampler(mixture(), stack[:2], num_inference_steps=2).sample()
    assert sampled.views == (Identity(), Rotate180())
    assert sampled.animate(tmp_path / "a.gif", fps=5, move=0.4).exists()
    assert Sampler(mixture(), [stack[2]], num_inference_steps=2).sample().views == (Rotate180(),)
    hybrid = Sampler(mixture(), [Hybrid(0, 1)], num_inference_steps=2).sample()
    assert hybrid.views == ()


def test_animating_leaves_the_images_alone(tmp_path):
    shown = result(count=2)
    before = shown.x.clone()
    shown.animate(tmp_path / "a.gif", "square_hinge", fps=5, move=0.6)
    assert torch.equal(shown.x, before)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_still_is_a_frame_of_the_way(share):
    x = result().x
    shown = np.asarray(still(x, "rotate_180", share, scale=3).convert("RGB"))
    assert (shown == enlarged(Rotate180().frame(x[0], share), 3)).all()


def test_a_still_without_a_view_goes_away():
    x = torch.full((1, 1, 16, 16), -1.0)
    near, far = (np.asarray(still(x, None, share, scale=4)) for share in (0, 1))
    assert (near == 0).all()
    assert far.shape == near.shape
    assert (far < 128).sum() == pytest.approx((64 / 12) ** 2, rel=0.3)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half"])
def test_a_still_needs_a_share(share):
    with pytest.raises((ValueError, TypeError), match="still: share must be"):
        still(result().x, None, share)
