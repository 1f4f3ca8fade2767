"""The image and the mask of a plugin at other sizes: made once, and never out of date."""

import gc
import weakref

import pytest
import torch
from PIL import Image

from composer.authoring import resized_image, resized_mask
from composer_plugins import FlowEdit, Inpaint, Reference, SDEdit
from composer_plugins.editing.differential import DifferentialEdit
from composer_plugins.editing.lanpaint import LanPaint
from composer_plugins.editing.rf_inversion import RFInversion

MAKERS = {
    "inpaint": Inpaint,
    "lanpaint": LanPaint,
    "differential_edit": DifferentialEdit,
    "sdedit": lambda image, mask: SDEdit(image),
    "flow_edit": lambda image, mask: FlowEdit(image, 3),
    "rf_inversion": lambda image, mask: RFInversion(image),
}
MASKS = {"inpaint": "mask", "lanpaint": "mask", "differential_edit": "strengths"}


def given():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, 12, 12, generator=generator), torch.rand(12, 12, generator=generator)


@pytest.mark.parametrize("name", MAKERS)
def test_a_plugin_is_resized_once_to_each_size(name):
    image, mask = given()
    plugin = MAKERS[name](image, mask)
    small = plugin.resized(4, 4)
    assert plugin.resized(4, 4) is small
    assert plugin.resized(6, 6) is not small
    assert plugin.resized(12, 12) is plugin
    assert torch.equal(small.image, resized_image(image, 4, 4, "image"))
    if name in MASKS:
        assert torch.equal(getattr(small, MASKS[name]), resized_mask(mask, 4, 4, "mask"))
    image.mul_(0.5)  # a tensor is not copied
    assert torch.equal(plugin.resized(4, 4).image, resized_image(image, 4, 4, "image"))


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_changes_is_resized_anew(name):
    image, mask = given()
    plugin = MAKERS[name](image, mask)
    before = getattr(plugin.resized(4, 4), MASKS[name]).clone()
    mask.zero_()
    assert before.any()
    assert not getattr(plugin.resized(4, 4), MASKS[name]).any()


def test_tensors_of_inference_mode_and_pictures_are_resized_once_too():
    with torch.inference_mode():
        image, mask = given()
    for plugin in (Inpaint(image, mask), SDEdit(Image.new("RGB", (12, 12)))):
        assert plugin.resized(4, 4) is plugin.resized(4, 4)


def test_a_reference_resizes_its_decomposition_with_its_image():
    image, _ = given()
    small = Reference(image).resized(4, 4)
    assert torch.equal(small.image, resized_image(image, 4, 4, "image"))
    fitted = Reference(image, fit="crop")
    assert fitted.resized(4, 4).image is fitted.image


def test_nothing_outlives_its_plugin():
    image, mask = given()
    plugin = Inpaint(image, mask)
    small = weakref.ref(plugin.resized(4, 4))
    assert small() is not None
    del plugin
    gc.collect()
    assert small() is None
