"""Where networks run, and in what they compute when nobody says it."""

import json

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from tiny_unet import load, tiny_unet, write
from torch import nn

import composer
from composer import Sampler
from composer.named import device_of
from composer.solvers import DDIM
from composer_plugins.backends import placement as placing
from composer_plugins.backends.placement import (
    DTYPES,
    WITH_FLOAT64,
    computes_in_bf16,
    loop_dtype,
    place_of,
    placement,
)


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx2": True, "avx512_f": True}, False),
        ({}, False),
    ],
)
def test_a_processor_is_asked_whether_it_multiplies_in_bfloat16(monkeypatch, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert computes_in_bf16(torch.device("cpu")) is expected
    assert not computes_in_bf16(torch.device("meta"))


def test_names_of_dtypes_and_devices():
    assert placement("cpu", "bfloat16") == (torch.device("cpu"), torch.bfloat16)
    assert device_of(torch.device("cpu")) == torch.device("cpu")
    for number in (0, None):
        with pytest.raises(ValueError, match="a name that torch knows"):
            device_of(number)
    with pytest.raises(ValueError, match="a name that torch knows, got .* Use 'cpu'"):
        placement("abacus", "float32")
    with pytest.raises(ValueError, match="'meta' is not available. Use 'cpu'"):
        placement("meta", "float32")


def test_some_networks_take_float64_and_then_the_loop_has_it(monkeypatch, tmp_path):
    assert placement("cpu", "float64", WITH_FLOAT64) == (torch.device("cpu"), torch.float64)
    for narrow in DTYPES:
        assert loop_dtype(getattr(torch, narrow)) == torch.float32
    double = load(write(tmp_path), dtype="float64")
    assert next(double.unet.parameters()).dtype == torch.float64
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    exactly, near = (
        Sampler(backend, [], DDIM(), 3).sample(seeds=[0, 1], x=noise).x
        for backend, noise in ((double, x.double()), (load(tmp_path), x))
    )
    assert exactly.dtype == torch.float64
    torch.testing.assert_close(near, exactly.float(), rtol=0, atol=1e-3)
    monkeypatch.setattr(placing, "device_of", lambda device: torch.device("mps"))
    assert placement("mps", "float32", WITH_FLOAT64)[1] == torch.float32
    with pytest.raises(ValueError, match="dtype must be float32 or narrower on mps"):
        placement("mps", "float64", WITH_FLOAT64)


@pytest.mark.parametrize("name", ["mnist", "mnist-ddpm", "mnist-latent", "nouns"])
def test_loaders_take_objects_and_names(name):
    by_object = composer.load_backend(name, device=torch.device("cpu"), dtype=torch.bfloat16)
    by_name = composer.load_backend(name, device="cpu", dtype="bfloat16")
    x = [Sampler(b, num_inference_steps=1).sample(1) for b in (by_object, by_name)]
    assert torch.equal(x[0].x, x[1].x)
    recipe = json.loads(json.dumps(x[0].recipe))
    assert torch.equal(Sampler.from_recipe(recipe).sample(1).x, x[0].x)


@pytest.mark.parametrize("name", ["mnist", "mnist-ddpm", "mnist-latent"])
def test_own_networks_do_not_take_float64(name):
    with pytest.raises(ValueError, match="dtype must be one of .* got 'float64'"):
        composer.load_backend(name, dtype=torch.float64)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_device_must_be_there(monkeypatch, count):
    present = torch.device("cuda") if count else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: present)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    for place, name in enumerate(("cuda:0", "cuda:1")):
        if place < count:
            assert device_of(name) == torch.device(name)
        else:
            with pytest.raises(ValueError, match=f"device '{name}' is not available"):
                device_of(name)


def test_a_network_is_where_its_weights_are_now():
    network = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert place_of(network) == (torch.device("cpu"), torch.float32)
    assert place_of(network.to(torch.bfloat16)) == (torch.device("cpu"), torch.bfloat16)
    assert place_of(network.to("meta")) == (torch.device("meta"), torch.bfloat16)


def test_a_network_that_diffusers_moves_or_casts_is_asked(monkeypatch):
    """Its weights lie elsewhere than it computes, or are kept in fewer bits."""
    cast = tiny_unet()
    cast.enable_layerwise_casting(torch.bfloat16, torch.float32)
    assert next(cast.parameters()).dtype is torch.bfloat16
    assert place_of(cast) == (torch.device("cpu"), torch.float32)
    moved = tiny_unet()
    monkeypatch.setattr(torch, "meta", torch.cpu, raising=False)  # as a device with a module
    moved.enable_group_offload(torch.device("meta"), offload_type="leaf_level")
    assert next(moved.parameters()).device == torch.device("cpu")
    assert place_of(moved) == (torch.device("meta"), torch.float32)


def test_a_step_does_not_walk_through_the_network_to_find_it(tmp_path, monkeypatch):
    """As the network's own ``device`` and ``dtype`` do."""
    backend = load(write(tmp_path))
    kind = type(backend.unet)
    for name in ("device", "dtype"):
        monkeypatch.setattr(kind, name, property(lambda unet: pytest.fail("it walked")))
    monkeypatch.setattr(kind, "forward", lambda self, x, *a, **options: UNet2DOutput(x))
    assert Sampler(backend, num_inference_steps=2).sample().x.shape == (1, 3, 8, 8)
