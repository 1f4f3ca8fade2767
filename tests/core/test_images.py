import math

import pytest
import torch

from composer.images import all_finite


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
