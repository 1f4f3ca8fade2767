import math

import numpy as np
import pytest
import torch

from composer.images import all_finite, to_pil, to_pixels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_all_finite_is_not_deceived_by_sums(dtype):
    largest = torch.finfo(dtype).max
    x = torch.full((2, 3, 8, 8), largest, dtype=dtype)
    assert all_finite(x)  # though their sum is infinite
    for bad in ((math.nan,), (math.inf,), (-math.inf,), (math.inf, -math.inf)):
        for background in (largest, 0.0):
            spoilt = torch.full_like(x, background)
            spoilt.view(-1)[7 : 7 + len(bad)] = torch.tensor(bad, dtype=dtype)
            assert not all_finite(spoilt)


def test_pixels_are_those_of_the_pictures():
    x = torch.linspace(-1.2, 1.2, 64).reshape(1, 1, 8, 8)
    pixels = to_pixels(x)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, x.shape)
    assert np.array_equal(np.asarray(to_pil(x)[0]), pixels[0, 0])
    assert torch.equal(to_pixels(pixels / 127.5 - 1), pixels)
    assert (pixels.min(), pixels.max()) == (0, 255)
