"""What a result is to the one who holds it: its images one by one, as files, and at a glance."""

import io
import json

import numpy as np
import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

import composer
from composer import Sampler
from composer.contact_sheet import contact_sheet
from composer.images import to_pil
from composer.saving import at_size
from composer_plugins import CFG, Anagram, SDEdit

SAMPLER = Sampler(mixture(), [CFG(2.0)], num_inference_steps=3)


@pytest.fixture(scope="module")
def result():
    return SAMPLER.sample(1, seeds=[5, 0, 7, 12345])


def of(x, seeds=None):
    """A result of these images."""
    made = Sampler(mixture(), num_inference_steps=1).sample(1, seeds or range(len(x)))
    return type(made)(x, made.seeds, made.stats, made.draft)


# One by one


INDICES = [
    *(0, 3, -1, np.int64(2), torch.tensor(1)),
    *(slice(None), slice(1, 3), slice(None, None, -2), slice(2, 2)),
    *([2, 0, 2], np.array([1, 3]), torch.tensor([3, 1])),
    *([True, False, True, False], torch.tensor([False, True, True, False])),
]


@pytest.mark.parametrize("which", INDICES, ids=str)
def test_some_images_are_a_result(result, which):
    places = np.arange(4)[np.asarray(which) if not isinstance(which, slice) else which].reshape(-1)
    some = result[which]
    assert some.seeds == tuple(result.seeds[k] for k in places)
    assert torch.equal(some.x, result.x[places.tolist()])
    assert len(some) == len(some.images) == len(places)
    assert (some.recipe, some.condition) == (result.recipe, 1)


def test_a_result_is_iterated_image_by_image(result):
    assert [one.seeds for one in result] == [(5,), (0,), (7,), (12345,)]
    assert torch.equal(torch.cat([one.x for one in result]), result.x)
    assert len(list(result)) == len(result) == 4
    one = result[result.x.flatten(1).mean(1).argmax()]  # the choice of the best
    assert torch.equal(one.x[0].mean(), result.x.flatten(1).mean(1).max())


@pytest.mark.parametrize("which", [4, -5, [0, 9]])
def test_an_image_that_is_not_there(result, which):
    with pytest.raises(IndexError):
        result[which]


NO_INDICES = ["a", 1.5, None, True, ..., {0}, ["a"], [0.5], [None], [[0], [1, 2]], [[0, 1]], 2j]


@pytest.mark.parametrize("which", [*NO_INDICES, np.array(True), torch.tensor([1.0])], ids=str)
def test_what_is_no_index_is_one_sentence(result, which):
    with pytest.raises(TypeError, match="^Result: an index must be an integer, a slice, a l") as e:
        result[which]
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("which", [[], (), slice(0, 0), torch.zeros(0).long()], ids=str)
def test_no_images_are_a_result_and_no_sheet(result, which):
    none = result[which]
    assert (len(none), none.x.shape, none._repr_png_()) == (0, (0, 1, 8, 8), None)
    with pytest.raises(ValueError, match=r"^sheet: a result must have images to draw, got none\."):
        none.sheet()


# Files


def test_a_folder_of_files_by_seed_that_carry_their_recipe(result, tmp_path):
    files = result.save(tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["0005.png", "0000.png", "0007.png", "12345.png"]
    assert sorted(files) == sorted((tmp_path / "new" / "folder").iterdir())
    for file, image, seed in zip(files, result.images, result.seeds, strict=True):
        with Image.open(file) as read:
            assert read.tobytes() == image.tobytes()
            said = json.loads(read.text["composer"])
        assert said == {"composer": composer.__version__, "seed": seed, "recipe": result.recipe}


def test_a_picture_can_be_made_again_from_its_file(tmp_path):
    backend = composer.load_backend("mnist")
    sampler = Sampler(backend, [Anagram({"identity": 6, "rotate_180": 9})], num_inference_steps=2)
    (_, file) = sampler.sample(seeds=[3, 4]).save(tmp_path)
    with Image.open(file) as read:
        said, pixels = json.loads(read.text["composer"]), read.tobytes()
    call = composer.call_of(said["recipe"])
    again = Sampler.from_recipe(said["recipe"]).sample(**{**call, "seeds": [said["seed"]]})
    gap = np.frombuffer(again.images[0].tobytes(), np.uint8).astype(int)
    assert abs(gap - np.frombuffer(pixels, np.uint8)).max() <= 1  # convolutions of other batches


def test_one_image_is_a_file(result, tmp_path):
    for name in ("a.png", "b.PNG", "c.jpg", "d.jpeg", "e.webp"):
        assert result[2].save(tmp_path / "deep" / name) == [tmp_path / "deep" / name]
        with Image.open(tmp_path / "deep" / name) as read:
            assert read.size == (8, 8)
    with Image.open(tmp_path / "deep" / "a.png") as read:
        assert json.loads(read.text["composer"])["seed"] == 7
    (tmp_path / "v1.5").mkdir()
    assert result[2].save(str(tmp_path / "v1.5")) == [tmp_path / "v1.5" / "0007.png"]


def test_images_of_one_seed_are_files_of_their_own(tmp_path):
    images = torch.stack([torch.full((1, 8, 8), v) for v in (-0.5, 0.0, 0.5)])
    sampler = Sampler(mixture(), [SDEdit(images, 0.4)], num_inference_steps=5)
    result = sampler.sample(1, seeds=[7, 7, 7])
    files = result.save(tmp_path)
    assert [file.name for file in files] == ["0007.png", "0007-2.png", "0007-3.png"]
    for file, image in zip(files, result.images, strict=True):
        with Image.open(file) as read:
            assert read.tobytes() == image.tobytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_size_in_pixels(tmp_path, channels):
    small = of(torch.rand(2, channels, 8, 6) * 2 - 1)
    for file, image in zip(small.save(tmp_path, size=24), small.images, strict=True):
        with Image.open(file) as read:
            expected = np.asarray(image).repeat(3, 0).repeat(3, 1)
            assert (np.asarray(read) == expected).all()


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 200))
def test_the_longer_side_is_the_size(width, height, size):
    image = Image.fromarray(
        np.arange(width * height, dtype=np.uint32).astype(np.uint8).reshape(height, width)
    )
    seen = at_size(image, size)
    assert max(seen.size) == size
    assert abs(min(seen.size) - max(1, min(width, height) * size / max(width, height))) <= 0.5
    small = max(width, height) < 64
    if small and size > max(width, height):  # pixel by pixel: no value that was not there
        assert set(seen.tobytes()) <= set(image.tobytes())
        assert seen == image.resize(seen.size, Image.Resampling.NEAREST)
    else:
        assert seen == image.resize(seen.size, Image.Resampling.LANCZOS)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (("a.png",), ValueError, r"save: path must be a folder for 4 images, got 'a\.png'"),
        (("a.gif",), ValueError, r"save: path must end in \.png, .* or be a folder, got 'a\.gif'"),
        ((None,), TypeError, "save: path must be a string or a Path, got None"),
        (("out", 0), ValueError, "save: size must be an integer of at least 1, got 0"),
        (("out", 2.0), TypeError, "save: size must be an integer, got 2.0"),
        (("out", 10**6), ValueError, "save: size must be an integer of at most 4096"),
    ],
)
def test_what_cannot_be_saved_is_one_sentence(
    result, tmp_path, monkeypatch, arguments, error, sentence
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=sentence) as raised:
        result.save(*arguments)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_option_of_pil_is_no_option(result, tmp_path):
    with pytest.raises(TypeError, match="scale"):
        result.save(tmp_path, scale=16)


def test_a_file_in_the_place_of_the_folder(result, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot be a folder"):
        result.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_recipe_that_no_reader_takes_is_left_out(tmp_path):
    images = torch.rand(4, 3, 512, 512).double()
    sampler = Sampler(
        mixture(shape=(3, 512, 512), components=1), [SDEdit(images, 0.5)], num_inference_steps=2
    )
    result = sampler.sample(0, seeds=[1] * 4)[0]
    with pytest.warns(UserWarning, match="letters is too long for a picture"):
        (file,) = result.save(tmp_path)
    with Image.open(file) as read:
        assert read.text == {}


# At a glance


def test_a_sheet_is_rows_of_images():
    x = torch.rand(10, 1, 8, 8) * 2 - 1
    expected = {"0": x[:4], "4": x[4:8], "8": x[8:]}
    assert of(x).sheet(4, scale=2) == contact_sheet(expected, 2)
    assert of(x[:3]).sheet(scale=3) == contact_sheet({"": x[:3]}, 3)
    turned = of(x[:3]).sheet(scale=3, view="rotate_180")
    assert turned == contact_sheet({"": x[:3].flip(-1, -2)}, 3)
    with pytest.raises(ValueError, match="sheet: columns must be"):
        of(x).sheet(0)
    with pytest.raises(ValueError, match="sheet: scale must be"):
        of(x).sheet(scale=0)


@pytest.mark.parametrize(
    "shape", [(1, 1, 28, 28), (3, 3, 64, 64), (100, 1, 8, 8), (9, 3, 300, 200)]
)
def test_a_notebook_shows_the_images(shape):
    shown = of(torch.rand(shape) * 2 - 1, [0] * shape[0])
    with Image.open(io.BytesIO(shown._repr_png_())) as picture:
        assert max(picture.size) <= 1024 * 8
        assert picture.width <= 1024


def test_a_notebook_shows_no_latents():
    assert of(torch.zeros(1, 4, 8, 8))._repr_png_() is None


def test_a_result_in_a_line(result):
    words = repr(result)
    assert words.startswith("Result(x=Tensor[4, 1, 8, 8], seeds=(5, 0, 7, 12345), stats=Stats(")
    assert len(words) < 250
    assert "\n" not in words


@pytest.mark.parametrize("view", ["rotate_180", ["rotate_180", "flip"], []])
def test_views_of_an_animation_by_name(tmp_path, view):
    shown = of(torch.rand(1, 1, 8, 8) * 2 - 1)
    path = shown.animate(tmp_path / "a.gif", view=view, fps=10, move=0.2, hold=0.1, scale=1)
    with Image.open(path) as gif:
        frames = [np.asarray(f.convert("L")) for f in ImageSequence.Iterator(gif)]
    (upright,) = to_pil(shown.x)
    assert (frames[0] == np.asarray(upright)).all()
    named = [view] if isinstance(view, str) else view
    seen = [np.asarray(to_pil(composer.get_transform(name)(shown.x))[0]) for name in named]
    assert all(any((frame == end).all() for frame in frames) for end in seen)
