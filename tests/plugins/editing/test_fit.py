"""Plugins that take pictures: any file, of any size, and what they keep of it."""

import json

import numpy as np
import pytest
import torch
from conftest import mixture
from PIL import Image

import composer
from composer import Sampler
from composer.authoring import resized
from composer.images import read_mask, read_picture, to_tensor
from composer.recipes import call_of
from composer_plugins import (
    DDNM,
    Components,
    GrayColour,
    Inpaint,
    KnownPixels,
    LanPaint,
    Masks,
    Reference,
    SDEdit,
)

SHAPE = (3, 16, 16)
FITS = ["crop", "pad", "stretch"]


def photograph(height, width):
    """Turned by its EXIF data, and transparent in one corner."""
    place = np.linspace(0, 255, height * width * 4).reshape(height, width, 4)
    pixels = np.stack([place[..., 0], place[::-1, :, 1], place[:, ::-1, 2]], -1).astype(np.uint8)
    alpha = np.full((height, width, 1), 255, np.uint8)
    alpha[:3, :3] = 100
    image = Image.fromarray(np.concatenate([pixels, alpha], -1))
    image.getexif()[0x0112] = 6
    return image


def saved(image, file):
    image.save(file, exif=image.getexif())
    return str(file)


def drawn(height, width):
    """A white disc, turned as its photograph is."""
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2
    image = Image.fromarray(inside)
    image.getexif()[0x0112] = 6
    return image


STACKS = {
    "SDEdit": lambda image, mask, **fit: [SDEdit(image, 0.5, **fit)],
    "Inpaint": lambda image, mask, **fit: [Inpaint(image, mask, **fit)],
    "LanPaint": lambda image, mask, **fit: [LanPaint(image, mask, steps=1, **fit)],
    "Reference": lambda image, mask, **fit: [Reference(image, GrayColour(), **fit)],
}
WITHOUT_FIT = {
    "DDNM": lambda image, mask: [DDNM(image, KnownPixels(mask))],
    "Masks": lambda image, mask: [
        Components(Masks((mask, 1 - read_mask(mask, SHAPE[1:]))), (0, 1))
    ],
}


def made(stack):
    return Sampler(mixture(shape=SHAPE), stack, num_inference_steps=4).sample(seeds=[3]).x


@pytest.mark.parametrize("name", [*STACKS, *WITHOUT_FIT])
def test_a_file_is_the_picture_in_it(name, tmp_path):
    image, mask = photograph(16, 16), drawn(16, 16)
    files = saved(image, tmp_path / "cat.png"), saved(mask, tmp_path / "mask.png")
    stack = {**STACKS, **WITHOUT_FIT}[name]
    by_file = made(stack(*files))
    by_tensor = made(stack(read_picture(image, SHAPE), read_mask(mask, SHAPE[1:])))
    assert torch.equal(by_file, by_tensor)
    assert torch.equal(made(stack(image, mask)), by_file)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("fit", FITS)
def test_a_photograph_of_any_size_is_fitted(name, fit):
    image, mask = photograph(20, 31), drawn(40, 62)
    tensor, chosen = read_picture(image, SHAPE, fit), read_mask(mask, SHAPE[1:], fit)
    fitted = made(STACKS[name](image, mask, fit=fit))
    assert torch.equal(fitted, made(STACKS[name](tensor, chosen)))
    if name in ("Inpaint", "LanPaint"):
        known = (chosen == 0).expand(fitted.shape)
        assert known.any()
        assert torch.equal(fitted[known], tensor.double()[known])


@pytest.mark.parametrize("name", STACKS)
def test_a_fitted_plugin_fits_every_stage_of_a_cascade(name):
    """From the photograph itself, so that nothing is resampled twice."""
    (plugin,) = STACKS[name](photograph(20, 31), drawn(20, 31), fit="crop")
    small = resized(plugin, 16, 16)
    assert small.image == plugin.image
    assert torch.equal(made([small]), made([plugin]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_come_in_the_model_s_channels_and_tensors_do_not(channels, mode):
    backend, picture = mixture(shape=(channels, 8, 8)), photograph(8, 8).convert(mode)
    expected = Sampler(backend, [SDEdit(read_picture(picture, (channels, 8, 8)))]).sample().x
    assert torch.equal(Sampler(backend, [SDEdit(picture)]).sample().x, expected)
    # At a stage of another size, too.
    halved = resized(SDEdit(picture.resize((16, 16))), 8, 8)
    assert Sampler(backend, [halved]).sample().x.shape == (1, channels, 8, 8)
    if (tensor := to_tensor(picture)).shape[1] != channels:
        with pytest.raises(ValueError, match=f"image must have the backend's {channels} channel"):
            Sampler(backend, [SDEdit(tensor)])


def test_a_recipe_holds_the_pixels_and_not_the_path(tmp_path):
    """So it makes the same call where the file is not, or is another by now."""
    file, mask = tmp_path / "cat.png", tmp_path / "mask.png"
    saved(photograph(40, 30), file)
    saved(drawn(40, 30), mask)
    stack = [Inpaint(file, str(mask), fit="crop")]
    result = Sampler(composer.load_backend("mnist"), stack, num_inference_steps=2).sample(3)
    file.unlink()
    mask.unlink()
    recipe = json.loads(json.dumps(result.recipe))
    assert "cat" not in json.dumps(recipe)
    again = Sampler.from_recipe(recipe).sample(**call_of(recipe))
    assert torch.equal(again.x, result.x)


def test_what_is_kept_is_apart_from_what_was_given():
    picture, array = Image.new("L", (8, 8), 100), np.full((8, 8), 100, np.uint8)
    plugins = SDEdit(picture), SDEdit(array)
    picture.paste(0, (0, 0, 8, 8))
    array[:] = 0
    for plugin in plugins:
        assert ((to_tensor(plugin.image) + 1) * 127.5 - 100).abs().max() < 1e-4
