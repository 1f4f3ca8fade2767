"""Noise is drawn image by image, each from its own generator, and sent where the run is."""

import ast
from pathlib import Path

import pytest
import torch
from conftest import mixture

from composer.protocols import draw


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 3, 3), (1, 1, 1), (4, 5, 7)])
def test_an_image_is_what_its_generator_draws_alone(shape, dtype):
    """Bit for bit; torch draws few numbers and many by two rules."""
    backend = mixture(dtype=dtype)
    made = [torch.Generator().manual_seed(seed) for seed in range(5)]
    ours = draw(made, backend, shape)
    again = draw(made, backend, shape)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        for drawn in (ours, again):
            expected = torch.randn((1, *shape), generator=generator, dtype=dtype)
            assert torch.equal(drawn[seed : seed + 1], expected)


def test_to_a_cuda_device_it_goes_without_a_wait(monkeypatch):
    """From pinned memory, not blocking; a plain copy waits for all that the device is to do."""
    log = []

    class Far:
        shape, dtype, device = (1, 2, 2), torch.float32, torch.device("cuda")

    def pinned(tensor):
        log.append("pinned")
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **kw: log.append((args, kw)))
    draw([torch.Generator().manual_seed(0)], Far())
    assert log == ["pinned", ((torch.device("cuda"),), {"non_blocking": True})]


def test_no_list_of_numbers_is_copied_to_a_device_with_a_wait():
    """``torch.tensor(..., device=...)`` waits for a CUDA device, in each call of a backend."""
    root = Path(__file__).parents[2]
    files = [*(root / "composer").rglob("*.py"), *(root / "plugins/composer_plugins").rglob("*.py")]
    waiting = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("torch.tensor", "torch.as_tensor")
        and any(keyword.arg == "device" for keyword in node.keywords)
    ]
    assert len(files) > 100
    assert waiting == []
