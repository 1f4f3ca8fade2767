"""What training writes knows its checksum: no flipped bit passes for a weight."""

import contextlib

import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_mnist import tiny_unet
from tiny_nouns import TINY

from composer_lab.training.mnist import save_model
from composer_lab.training.nouns import noise_scheduler, save_pipeline
from composer_plugins.backends.checksum import checksum, require_checksum
from composer_plugins.backends.diffusers_unet.unet import read_unet as read_nouns
from composer_plugins.backends.mnist.backend import read_unet as read_digits

FILE = "diffusion_pytorch_model.safetensors"


def digits(folder):
    save_model(tiny_unet("class", width=2), folder, "path.json", {})
    return folder / FILE, lambda: read_digits(folder)


def nouns(folder):
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=32, num_class_embeds=255, **TINY)
    save_pipeline(unet, noise_scheduler(), folder, labelled=True)
    return folder / "unet" / FILE, lambda: read_nouns(folder)


@pytest.fixture(scope="module", params=[digits, nouns])
def written(request, tmp_path_factory):
    """A model's file of weights, and how the model is read."""
    return request.param(tmp_path_factory.mktemp("model"))


@settings(max_examples=25)
@given(head=st.booleans(), place=st.integers(0, 2**31), bit=st.integers(0, 7))
@example(head=False, place=0, bit=0)  # the last bit of the first weight
def test_a_flipped_bit_is_noticed_or_changes_no_weight(written, head, place, bit):
    """In the head, all but the checksum's own name is; among the weights, each."""
    file, read = written
    expected = read().state_dict()
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    spoilt = bytearray(whole)
    spoilt[place % end if head else end + place % (len(whole) - end)] ^= 1 << bit
    file.write_bytes(spoilt)
    try:
        if not head:
            with pytest.raises(ValueError, match="its weights do not have their checksum"):
                read()
            return
        with contextlib.suppress(ValueError):
            found = read().state_dict()
            assert all(torch.equal(value, found[name]) for name, value in expected.items())
    finally:
        file.write_bytes(whole)


def test_a_file_without_a_checksum_is_taken_as_it_is(tmp_path):
    weights = {"w": torch.ones(3)}
    save_file(weights, tmp_path / "x.safetensors")
    require_checksum(tmp_path / "x.safetensors")


def test_a_checksum_is_of_names_shapes_and_kinds_too(written):
    """And of each number, its sign included, in whatever order they come."""
    w = torch.zeros(2, 3)
    others = [{"v": w}, {"w": w.reshape(3, 2)}, {"w": w.int()}, {"w": -w}, {"w": w, "v": w}]
    sums = [checksum(weights) for weights in ({"w": w}, *others)]
    assert len(set(sums)) == len(sums)
    weights = load_file(written[0])
    assert checksum(weights) == checksum(dict(reversed(weights.items())))
