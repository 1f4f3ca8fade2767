"""Where networks run, and in what they compute when nobody says it."""

import json

import pytest
import torch
from test_training import trainer

import composer
from composer import Sampler
from composer.named import device_of
from composer_plugins.backends.placement import computes_in_bf16, placement


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


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("asked", [None, True, False])
def test_training_computes_as_asked_or_as_suits_the_device(tmp_path, monkeypatch, able, asked):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    run = trainer(tmp_path, epochs=1, bf16=asked)
    seen = []
    run.model.out.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run.run(progress=False)
    chosen = able if asked is None else asked
    assert seen[0] is (torch.bfloat16 if chosen else torch.float32)
    log = json.loads((tmp_path / "log.json").read_text())
    assert (log["bf16"], log["device"]) == (chosen, "cpu")
    assert all(p.dtype is torch.float32 for p in run.model.parameters())


@pytest.mark.parametrize("began", [True, False])
def test_a_resumed_training_goes_on_in_what_it_began_in(tmp_path, monkeypatch, began):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": began})
    trainer(tmp_path, epochs=1).run(progress=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not began})
    for asked, expected in ((None, began), (not began, not began)):
        run = trainer(tmp_path, epochs=1, bf16=asked)
        run.run(progress=False)
        assert run.bf16 is expected


def test_names_of_dtypes_and_devices():
    assert placement("cpu", "bfloat16") == (torch.device("cpu"), torch.bfloat16)
    assert device_of(torch.device("cpu")) == torch.device("cpu")
    for number in (0, None):
        with pytest.raises(ValueError, match="none that torch knows"):
            device_of(number)
    with pytest.raises(ValueError, match="none that torch knows; use 'cpu'"):
        placement("abacus", "float32")
    with pytest.raises(ValueError, match="'meta' is not available; use 'cpu'"):
        placement("meta", "float32")


@pytest.mark.parametrize("name", ["mnist", "mnist-ddpm", "nouns"])
def test_loaders_take_objects_and_names(name):
    by_object = composer.load_backend(name, device=torch.device("cpu"), dtype=torch.bfloat16)
    by_name = composer.load_backend(name, device="cpu", dtype="bfloat16")
    x = [Sampler(b, num_inference_steps=1).sample(1) for b in (by_object, by_name)]
    assert torch.equal(x[0].x, x[1].x)
    recipe = json.loads(json.dumps(x[0].recipe))
    assert torch.equal(Sampler.from_recipe(recipe).sample(1).x, x[0].x)
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
