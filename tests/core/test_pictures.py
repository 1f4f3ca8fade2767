"""Pictures from outside against an independent reading: numpy's, pixel by pixel."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from composer.arguments import FromRecipe
from composer.images import hold_image, hold_mask, read_picture, to_mask, to_pixels, to_tensor
from composer.limits import MAX_PIXELS
from composer.pictures import MAX_FITTED, open_picture

ORIENTATION = 0x0112
UPRIGHT = {  # how a viewer shows what is stored, by the EXIF standard's table
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def flattened(colours, alpha):
    """In [0, 1], (H, W, C): the paint on white paper."""
    alpha = alpha[..., None] / 255
    return alpha * colours / 255 + (1 - alpha)


def opaque(values, white=255):
    return values.reshape(*values.shape[:2], -1) / white


def with_info(image, **info):
    image.info.update(info)
    return image


def palette_picture(rng, size):
    indices, palette = rng.integers(0, 6, size, np.uint8), rng.integers(0, 256, (6, 3), np.uint8)
    alphas = rng.integers(0, 256, 6, np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette.tobytes())
    return with_info(image, transparency=alphas.tobytes()), flattened(
        palette[indices].astype(float), alphas[indices].astype(float)
    )


def grey_with_one_clear(rng, size, kind=np.uint8, white=255):
    values, clear = rng.integers(0, white + 1, size, kind), 77
    values[0, 0] = clear
    shown = np.where(values == clear, white, values)
    return with_info(Image.fromarray(values), transparency=clear), opaque(shown, white)


def colour_with_one_clear(rng, size):
    values = rng.integers(0, 2, (*size, 3), np.uint8) * 200
    shown = np.where((values == (200, 0, 200)).all(-1, keepdims=True), 255, values)
    return with_info(Image.fromarray(values), transparency=(200, 0, 200)), opaque(shown)


def painted(rng, size, channels):
    values = rng.integers(0, 256, (*size, channels), np.uint8)
    return Image.fromarray(values), flattened(values[..., :-1], values[..., -1].astype(float))


def plain(rng, size, *channels):
    values = rng.integers(0, 256, (*size, *channels), np.uint8)
    return Image.fromarray(values), opaque(values)


def bilevel(rng, size):
    values = rng.integers(0, 2, size, np.uint8) * 255
    return Image.fromarray(values).convert("1", dither=Image.Dither.NONE), opaque(values)


def deep(rng, size, kind, white):
    values = rng.integers(0, white + 1, size, kind)
    values[0, 0] = white  # which says what is white
    return Image.fromarray(values), opaque(values, white)


def fractions(rng, size):
    values = rng.random(size, np.float32)
    return Image.fromarray(values), opaque(values, 1)


def of_floats(rng, size):
    image, shown = deep(rng, size, np.int32, 255)
    return image.convert("F"), shown


MODES = {  # name: a picture and what it shows, by whoever reads the numbers by hand
    "1": bilevel,
    "L": plain,
    "LA": lambda rng, size: painted(rng, size, 2),
    "RGB": lambda rng, size: plain(rng, size, 3),
    "RGBA": lambda rng, size: painted(rng, size, 4),
    "P": palette_picture,
    "L, tRNS": grey_with_one_clear,
    "RGB, tRNS": colour_with_one_clear,
    "I;16": lambda rng, size: deep(rng, size, np.uint16, 65535),
    "I;16, tRNS": lambda rng, size: grey_with_one_clear(rng, size, np.uint16, 65535),
    "I, 8 bits": lambda rng, size: deep(rng, size, np.int32, 255),
    "I, 16 bits": lambda rng, size: deep(rng, size, np.int32, 65535),
    "F, 8 bits": of_floats,
    "F": fractions,
}


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))


def shown_by(tensor):
    """(H, W, C) in [0, 1]."""
    return (tensor[0].permute(1, 2, 0).numpy() + 1) / 2


@given(
    st.sampled_from(list(MODES)),
    sizes,
    st.sampled_from(list(UPRIGHT)),
    st.integers(0, 9999),
    st.sampled_from([None, "PNG", "WEBP", "TIFF"]),
)
def test_a_picture_is_read_as_a_viewer_shows_it(mode, size, orientation, seed, container):
    image, shown = MODES[mode](np.random.default_rng(seed), size)
    expected = UPRIGHT[orientation](shown)
    image.getexif()[ORIENTATION] = orientation
    if container and mode in WRITES[container]:
        buffer = io.BytesIO()
        options = {"lossless": True, "exact": True} if container == "WEBP" else {}
        image.save(buffer, container, exif=image.getexif(), **options)
        image = Image.open(buffer)
    before = image.tobytes()
    read = shown_by(to_tensor(image))
    assert read.shape == expected.shape
    assert np.abs(read - expected).max() <= 1 / 255  # of a paint's edge, rounded once
    if mode in ("1", "L", "RGB") or "16" in mode:
        assert np.abs(read - expected).max() < 1e-6
    assert image.tobytes() == before  # nothing is written into what was given


WRITES = {
    "PNG": {"1", "L", "LA", "RGB", "RGBA", "P", "L, tRNS", "RGB, tRNS", "I;16", "I;16, tRNS"},
    "WEBP": {"RGB", "RGBA"},
    "TIFF": {"1", "L", "RGB", "I;16", "I, 8 bits", "I, 16 bits", "F, 8 bits", "F"},
}


@given(st.sampled_from(list(MODES)), sizes, st.integers(0, 9999))
def test_reading_is_done_once(mode, size, seed):
    """What a plugin keeps is a copy that reads as what it was made of, from a recipe too."""
    image, _ = MODES[mode](np.random.default_rng(seed), size)
    held = hold_image(image)
    assert held is not image
    again = hold_image(held)
    assert (again.mode, again.info) == (held.mode, {})
    assert held.mode in ("L", "RGB", "I;16")
    assert torch.equal(to_tensor(held), to_tensor(image))
    buffer = io.BytesIO()
    held.save(buffer, "PNG")  # as a recipe does
    assert torch.equal(to_tensor(Image.open(buffer)), to_tensor(image))


@pytest.mark.parametrize("mode", ["La", "PA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_rare_modes_show_the_colour_they_were_made_of(mode):
    red = Image.new("RGB", (3, 2), "red")
    if mode == "LAB":  # of which PIL makes none: L = 54 %, a = 81 and b = 70, both plus 128
        image = Image.new("LAB", (3, 2), (138, 209, 198))
    elif mode == "PA":
        image = red.quantize(2).convert("PA")
    else:
        image = red.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")).convert(mode)
    expected = to_tensor(red.convert("L") if mode == "La" else red)
    assert image.mode == mode
    assert (to_tensor(image) - expected).abs().max() < 0.04


def test_a_16_bit_ramp_stays_a_ramp():
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)[None]
    image = Image.fromarray(ramp)
    assert torch.equal(to_pixels(to_tensor(image)).flatten(), torch.arange(256).byte())
    big_endian = Image.frombytes("I;16B", image.size, ramp.astype(">u2").tobytes())
    for other in (big_endian, image.convert("I"), image.convert("F"), ramp, ramp.astype(np.int64)):
        assert torch.equal(to_tensor(other), to_tensor(image))


def test_arrays_are_as_pil_s_images_or_as_tensors():
    rng = np.random.default_rng(0)
    for channels in ((), (1,), (2,), (3,), (4,)):
        pixels = rng.integers(0, 256, (5, 4, *channels), np.uint8)
        image = Image.fromarray(pixels[..., 0] if channels == (1,) else pixels)
        assert torch.equal(to_tensor(pixels), to_tensor(image))
        assert torch.equal(to_tensor(pixels[::-1, ::-1]), to_tensor(image).flip(-1, -2))
    colours = rng.integers(0, 65536, (5, 4, 3), np.uint16)
    assert np.abs(shown_by(to_tensor(colours)) - colours / 65535).max() <= 0.51 / 255
    values = rng.uniform(-1, 1, (2, 3, 5, 4))
    assert torch.equal(to_tensor(values[:, ::-1]), torch.from_numpy(values).flip(1))
    assert to_tensor(values[0].astype(">f4")).dtype == torch.float32


def test_paths_are_opened_and_closed(tmp_path):
    image, _ = painted(np.random.default_rng(0), (7, 5), 4)
    file = tmp_path / "cat.png"
    image.save(file)
    expected = to_tensor(image)
    for path in (file, str(file)):
        assert torch.equal(to_tensor(path), expected)
    held = hold_image(file)
    file.unlink()
    assert torch.equal(to_tensor(held), expected)
    with pytest.raises(
        FileNotFoundError, match="image must be a picture, .* There is no such file"
    ):
        to_tensor(file)
    with pytest.raises(FileNotFoundError, match="the address 'https://a.org/b.png'. Download"):
        to_tensor("https://a.org/b.png")
    image.save(file)
    with pytest.raises(TypeError, match="image must be a picture, got the text .* of a recipe"):
        to_tensor(FromRecipe(file))


def test_larger_pictures_than_any_model_makes_are_averaged():
    ramp = np.linspace(0, 65535, 8200).astype(np.uint16)[None].repeat(2100, 0)
    for image in (Image.fromarray(ramp), Image.fromarray((ramp // 257).astype(np.uint8))):
        small = open_picture(image)
        assert (small.mode, small.size) == (image.mode, (4100, 1050))
        assert small.width * small.height <= MAX_PIXELS
        expected = np.asarray(image, dtype=float).reshape(1050, 2, 4100, 2).mean((1, 3))
        assert np.abs(np.asarray(small) - expected).max() <= 0.5
        fitted = hold_image(image, fit="crop")  # and what is fitted, more
        assert (fitted.mode, fitted.size) == (image.mode, (2050, 525))
        assert fitted.width * fitted.height <= MAX_FITTED


@given(sizes, st.integers(0, 9999))
def test_one_mask_in_all_its_forms(size, seed):
    mask = np.random.default_rng(seed).random(size) > 0.5
    byte, ones = mask.astype(np.uint8) * 255, mask.astype(np.uint8)
    white = np.full(size, 255, np.uint8)
    indexed = Image.fromarray(ones).convert("P")
    indexed.putdata(ones.ravel().tolist())
    indexed.putpalette([0, 0, 0, 255, 255, 255])
    forms = [
        mask,
        byte,
        ones,
        ones.astype(np.int64),
        np.stack([byte] * 3, -1),
        byte.astype(np.uint16) * 257,
        mask.astype(np.float32),
        torch.from_numpy(mask),
        torch.from_numpy(mask).double(),
        indexed,
        Image.fromarray(mask),
        Image.fromarray(byte),
        Image.fromarray(ones),
        Image.fromarray(ones.astype(np.uint16)),
        Image.fromarray(ones.astype(np.int32)),
        Image.fromarray(byte).convert("RGB"),
        Image.fromarray(byte).convert("RGBA"),  # opaque: its grey
        Image.fromarray(np.stack([white, byte], -1)),  # white paint: its alpha
        Image.fromarray(np.stack([white] * 3 + [byte], -1)),
        Image.fromarray(mask.astype(np.float32)),
    ]
    for form in forms:
        read = to_mask(form)
        assert read.dtype == torch.float32
        assert torch.equal(read, torch.from_numpy(mask).float())
        assert torch.equal(to_mask(hold_mask(form)), read)


def test_soft_masks_keep_their_values():
    ramp = np.arange(256, dtype=np.uint8)[None]
    layer = np.stack([np.full_like(ramp, 255), ramp], -1)
    for form in (ramp, Image.fromarray(ramp), Image.fromarray(layer), layer):
        assert torch.equal(to_mask(form), torch.arange(256)[None] / 255)
    half = Image.fromarray(np.array([[0.25, 0.5]], dtype=np.float32))
    torch.testing.assert_close(to_mask(half), torch.tensor([[0.25, 0.5]]), rtol=0, atol=1e-5)


def test_a_mask_is_turned_with_its_image():
    mask = Image.fromarray(np.eye(2, 3, dtype=np.uint8) * 255)
    mask.getexif()[ORIENTATION] = 6
    assert torch.equal(to_mask(mask), torch.eye(2, 3).rot90(-1))


def layer(*colour):
    """Paint on the left half of a layer that is transparent on the right."""
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.paste(colour, (0, 0, 2, 4))
    return image


CUT_OUT = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (Image.new("RGB", (4, 4), "red"), "mask must be grey, got a picture in colours"),
        (layer(0, 0, 0, 255), "opaque, or white paint on a transparent layer, got RGBA"),
        (CUT_OUT, "opaque, or white paint"),
        (with_info(Image.fromarray(np.eye(4, dtype=np.uint8)), transparency=0), "opaque, or white"),
        (with_info(Image.new("I;16", (4, 4)), transparency=0), "opaque, or white paint"),
        (Image.new("I", (4, 4), 65536), "whole numbers of 8 or 16 bits, got values from 65536"),
        (torch.full((4, 4), 2.0), r"mask must lie in \[0, 1\]"),
        (torch.ones(1, 4, 4, dtype=torch.bool), r"mask must have the shape \(H, W\)"),
    ],
)
def test_masks_that_may_mean_either_are_refused(mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_mask(mask)


def test_white_paint_is_a_mask_by_its_alpha():
    left = torch.zeros(4, 4)
    left[:, :2] = 1
    assert torch.equal(to_mask(layer(255, 255, 255, 255)), left)
    # The two ways that the sentence gives for other paint.
    alpha = layer(0, 0, 0, 255).convert("RGBA").getchannel("A")
    assert torch.equal(to_mask(alpha), left)


@pytest.mark.parametrize(
    ("picture", "error", "sentence"),
    [
        (Image.new("F", (2, 2), 1.5), ValueError, r"fractions in \[0, 1\] or whole numbers of 8"),
        (Image.new("F", (2, 2), float("nan")), ValueError, "from nan to nan. Scale them"),
        (Image.new("I", (2, 2), -1), ValueError, "got values from -1 to -1"),
        (np.zeros((2, 2), complex), TypeError, "an array of numbers, got one of complex128"),
        (np.zeros((3, 2, 2, 2), np.uint8), ValueError, r"\(H, W, 1 to 4\), got the shape \(3, 2"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, r"got the shape \(3, 8, 8\). Transpose it"),
        (np.zeros((8, 8), np.float32), ValueError, "Give pixels .* as an array of uint8"),
        (torch.zeros(1, 2, 2, dtype=torch.uint8), TypeError, "one of torch.uint8. Scale an image"),
        (None, TypeError, "image must be a PIL image, the path of one, an array or a floating-"),
    ],
)
def test_what_does_not_say_what_is_white_is_refused(picture, error, sentence):
    with pytest.raises(error, match=sentence):
        to_tensor(picture)


def test_the_advice_does_not_clip():
    ramp = np.arange(-1000, 99_000, dtype=np.int64).reshape(100, 1000)
    with pytest.raises(ValueError, match="Scale them, for example by"):
        to_tensor(ramp)
    scaled = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    read = to_tensor(Image.fromarray(scaled.astype(np.float32)))
    assert torch.equal(read.flatten(), read.flatten().sort().values)
    assert len(read.unique()) > 60_000


@given(st.sampled_from(["L", "RGB", "I;16"]), st.sampled_from([1, 3]), st.integers(0, 9999))
def test_pictures_come_in_the_model_s_channels(mode, channels, seed):
    image, shown = MODES[mode](np.random.default_rng(seed), (4, 5))
    read = shown_by(read_picture(image, (channels, 4, 5), None))
    assert read.shape == (4, 5, channels)
    if shown.shape[-1] > channels:  # BT.601
        shown = shown @ np.array([[0.299], [0.587], [0.114]])
    assert np.abs(read - shown).max() < 1e-6
