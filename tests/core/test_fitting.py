"""Pictures at another size: geometry that is exact where it can be, PIL's resampling elsewhere."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from composer.fitting import fit_image, fit_mask, proportional
from composer.images import read_mask, read_picture, to_pixels

FITS = ["crop", "pad", "stretch"]
sides = st.integers(1, 9)
pairs = st.tuples(sides, sides)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@given(pairs, st.sampled_from(FITS))
def test_a_picture_that_fits_is_itself(size, fit):
    x = noise(2, 3, *size)
    assert torch.equal(fit_image(x, size, fit), x)
    assert torch.equal(fit_mask(x[0, 0], size, fit), x[0, 0])


@given(pairs, st.integers(0, 3), st.booleans())
def test_the_middle_is_cut_out_and_bars_are_put_around_it(size, bar, lying):
    """Undistorted where nothing needs resampling; of an image and its mask the same part."""
    x, bars = noise(1, 3, *size), (bar, bar, 0, 0) if lying else (0, 0, bar, bar)
    wide = F.pad(x, bars, value=0.5)
    assert torch.equal(fit_image(wide, size, "crop"), x)
    assert torch.equal(fit_mask(wide[0, 0], size, "crop"), x[0, 0])
    rows, columns = wide.shape[-2:]
    assume(proportional((rows, columns), size) == size)
    assert torch.equal(fit_image(x, (rows, columns), "pad"), F.pad(x, bars, value=1.0))
    assert torch.equal(fit_mask(x[0, 0], (rows, columns), "pad"), F.pad(x[0, 0], bars))


@given(pairs, pairs)
def test_the_largest_part_in_the_proportions_is_taken(size, proportions):
    rows, columns = proportional(size, proportions)
    assert 1 <= rows <= size[0]
    assert 1 <= columns <= size[1]
    assert rows == size[0] or columns == size[1]
    # The other side is what the proportions say, to half a pixel.
    height, width = proportions
    if rows == size[0]:
        assert abs(columns - rows * width / height) <= 0.5 or columns in (1, size[1])
    else:
        assert abs(rows - columns * height / width) <= 0.5 or rows == 1


@given(st.tuples(sides, sides, sides, sides), st.sampled_from(FITS), st.integers(0, 99))
def test_one_colour_stays_one_and_nothing_leaves_the_range(numbers, fit, seed):
    old, new = numbers[:2], numbers[2:]
    x = noise(2, 3, *old, seed=seed)
    made = fit_image(x, new, fit)
    assert made.shape == (2, 3, *new)
    assert made.abs().max() <= 1
    assert fit_image(1.5 * x, new, fit).abs().max() <= max(1, 1.5 * x.abs().max())
    flat = fit_image(torch.full_like(x, 0.25), new, fit)
    assert (((flat - 0.25).abs() < 1e-6) | (flat == 1) & (fit == "pad")).all()
    # An image of a batch is what it is alone.
    assert torch.equal(fit_image(x[1:], new, fit), made[1:])


@given(st.tuples(sides, sides, sides, sides), st.sampled_from(FITS), st.integers(0, 99))
def test_a_mask_is_exact_where_all_that_it_covers_is(numbers, fit, seed):
    old, new = numbers[:2], numbers[2:]
    mask = (noise(*old, seed=seed) > 0).float()
    made = fit_mask(mask, new, fit)
    assert made.shape == new
    assert ((made >= 0) & (made <= 1)).all()
    # Complementary masks stay so, but for bars, which both keep.
    both = made + fit_mask(1 - mask, new, fit)
    bars = 1 - fit_mask(torch.ones(old), new, fit)
    torch.testing.assert_close(both + bars, torch.ones(new))
    assert set(bars.unique().tolist()) <= ({0.0, 1.0} if fit == "pad" else {0.0})


def by_pil(image, size, fit):
    """The same by PIL, for whole-pixel cuts."""
    height, width = size
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    square = min(image.size)
    if fit == "crop":
        left, top = (image.width - square) // 2, (image.height - square) // 2
        cut = image.crop((left, top, left + square, top + square))
        return cut.resize((width, height), Image.Resampling.BICUBIC)
    share = height / max(image.size)
    inner = image.resize(
        (round(image.width * share), round(image.height * share)), Image.Resampling.BICUBIC
    )
    page = Image.new(image.mode, (width, height), "white")
    page.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return page


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(60, 45), (45, 60), (20, 12), (31, 31)])
def test_pictures_are_resampled_as_by_pil(fit, mode, size):
    channels = 3 if mode == "RGB" else 1
    smooth = F.interpolate(noise(1, channels, 7, 7) / 2, size, mode="bicubic")
    array = to_pixels(smooth)[0].permute(1, 2, 0).numpy()
    image = Image.fromarray(array if mode == "RGB" else array[..., 0])
    read = to_pixels(read_picture(image, (channels, 28, 28), fit))
    expected = np.asarray(by_pil(image, (28, 28), fit)).reshape(28, 28, channels)
    assert np.abs(read[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    # A tensor of the same numbers comes to the same, up to rounding to 8 bits.
    numbers = torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1
    exact = read_picture(numbers, (channels, 28, 28), fit)
    assert (exact - (read / 127.5 - 1)).abs().max() < 2.1 / 127.5


def test_half_precision_and_16_bits_are_resampled_too():
    x = noise(1, 3, 9, 7)
    expected = fit_image(x, (4, 5), "crop")
    for dtype, bound in ((torch.float64, 1e-6), (torch.float16, 4e-3), (torch.bfloat16, 4e-2)):
        made = fit_image(x.to(dtype), (4, 5), "crop")
        assert made.dtype == dtype
        assert (made - expected).abs().max() < bound
    ramp = np.linspace(0, 65535, 24 * 24).astype(np.uint16).reshape(24, 24)
    deep = read_picture(ramp, (1, 12, 12), "crop")
    exact = read_picture(torch.from_numpy(ramp / 32767.5 - 1)[None], (1, 12, 12), "crop")
    assert (deep - exact).abs().max() < 1e-5


def test_a_mask_drawn_on_a_photograph_lies_on_it():
    """A red square on white, masked where it is: after any fit the mask is where red is."""
    photo = np.full((90, 160, 3), 255, np.uint8)
    photo[20:60, 50:110] = (255, 0, 0)
    mask = (photo[..., 1] == 0).astype(np.uint8)
    for fit in FITS:
        read = read_picture(photo, (3, 32, 32), fit)
        drawn = read_mask(mask, (32, 32), fit)
        red = (1 - read[0, 1]) / 2
        assert (red[drawn == 1] > 0.85).all()
        assert (red[drawn == 0] < 0.15).all()
        assert (drawn == 1).sum() > 60
