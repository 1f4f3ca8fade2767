"""Prompts by region of a canvas: the law, equality with components, and the rows saved."""

import json

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Each, Sampler, installed
from composer.recipes import decode, encode
from composer.testing import IdentityBackend
from composer_plugins import CFG, Anagram, Canvas, Components, Masks, Regions
from composer_plugins.canvas.regions import Layout, columns

LEFT = torch.zeros(8, 20)
LEFT[:, :10] = 1
RAMP = torch.linspace(1, 0, 20).expand(8, 20).contiguous()


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("wrap", ["none", "horizontal"])
@pytest.mark.parametrize("mask", [LEFT, RAMP])
def test_they_are_components_of_the_canvas(mask, wrap):
    canvas, masks = Canvas(mixture(), (8, 20), wrap=wrap), (mask, 1 - mask)
    by_region, by_part = (
        Sampler(canvas, [plugin, CFG(3.0)], num_inference_steps=4).sample(seeds=[0, 1])
        for plugin in (Regions((1, 2), masks), Components(Masks(masks), (1, 2)))
    )
    torch.testing.assert_close(by_region.x, by_part.x)
    assert by_region.stats.rows <= by_part.stats.rows
    assert mask is RAMP or by_region.stats.rows < by_part.stats.rows


def test_a_crop_asks_the_regions_that_it_shows():
    """Starts at 0, 4, 8 and 12 of a canvas 20 wide; the border is at 10."""
    canvas = Canvas(mixture(), (8, 20))
    stats = Sampler(canvas, [Regions((1, 2), (LEFT, 1 - LEFT))], num_inference_steps=1).sample()
    assert stats.stats.rows == 1 + 2 + 2 + 1


def test_one_region_is_the_condition():
    canvas = Canvas(mixture(), (8, 20))
    made = Sampler(canvas, [Regions([2], [torch.ones(4, 4)])], num_inference_steps=3).sample()
    torch.testing.assert_close(made.x, Sampler(canvas, num_inference_steps=3).sample(2).x)


def test_a_region_may_have_a_condition_a_seed():
    canvas, masks = Canvas(mixture(), (8, 20)), (LEFT, 1 - LEFT)
    regions = Regions((Each([0, 1]), 2), masks)
    both = Sampler(canvas, [regions, CFG(3.0)], num_inference_steps=3).sample(seeds=[4, 5]).x
    for k in range(2):
        one = Sampler(canvas, [Regions((k, 2), masks), CFG(3.0)], num_inference_steps=3)
        torch.testing.assert_close(both[k : k + 1], one.sample(seeds=[4 + k]).x)
    with pytest.raises(ValueError, match=r"must be equally many in each region, got \[2, 3\]"):
        Regions((Each([0, 1]), Each([0, 1, 2])), masks)


@settings(max_examples=15)
@given(st.integers(1, 5), st.floats(0, 1), st.sampled_from(["none", "horizontal"]))
def test_they_obey_the_law(count, soft, wrap):
    canvas = Canvas(IdentityBackend((1, 8, 8)), (8, 24), wrap=wrap)
    x = noise(2, 1, 8, 24)
    stack = [Regions([*range(count)], soft=soft), CFG(3.0)]
    torch.testing.assert_close(Sampler(canvas, stack).denoise(x, 0.3).prediction, x)


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(6, 60), st.floats(0, 1), st.booleans())
def test_a_row_has_columns_that_sum_to_one(count, width, soft, wraps):
    masks = columns(count, width, soft, wraps)
    assert masks.shape == (count, width)
    assert ((masks >= 0) & (masks <= 1)).all()
    torch.testing.assert_close(masks.sum(0), torch.ones(width, dtype=torch.float64))


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(1, 10), st.floats(0, 1))
def test_columns_of_a_row_that_wraps_are_alike(count, each, soft):
    masks = columns(count, count * each, soft, wraps=True)
    torch.testing.assert_close(masks, masks.roll(1, 0).roll(each, 1))


def test_borders_are_as_soft_as_they_should_be():
    hard, soft = (columns(2, 128, s, wraps=False)[0] for s in (0.0, 0.5))
    assert torch.equal(hard, (torch.arange(128) < 64).double())
    places = torch.arange(128, dtype=torch.float64) + 0.5
    torch.testing.assert_close(soft, (0.5 - (places - 64) / 32).clamp(0, 1))


@pytest.mark.parametrize("wrap", ["none", "horizontal"])
def test_the_canvas_says_whether_a_row_wraps(wrap):
    canvas = Canvas(mixture(), (8, 20), wrap=wrap)
    masks = columns(2, 20, 0.5, wraps=wrap == "horizontal")[:, None].expand(2, 8, 20)
    one, other = (
        Sampler(canvas, [plugin], num_inference_steps=2).sample().x
        for plugin in (Regions((1, 2)), Regions((1, 2), [*masks.float()]))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_masks_are_divided_by_their_sum():
    canvas = Canvas(mixture(), (8, 20))
    one, other = (
        Sampler(canvas, [Regions((1, 2), masks)], num_inference_steps=2).sample().x
        for masks in ((RAMP, 1 - RAMP), (0.3 * RAMP, 0.3 * (1 - RAMP)))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_they_stand_in_a_view():
    """Anagrams of panoramas: 1 2 upright, 3 0 turned."""
    canvas = Canvas(mixture(), (8, 20))
    views = {
        "identity": Regions((1, 2), (LEFT, 1 - LEFT)),
        "rotate_180": Regions((3, 0), (LEFT, 1 - LEFT)),
    }
    x = noise(1, 1, 8, 20)
    made = Sampler(canvas, [Anagram(views)]).denoise(x, 0.3).prediction
    upright, turned = (
        Sampler(canvas, [plugin]).denoise(seen, 0.3).prediction
        for plugin, seen in zip(views.values(), (x, x.flip(-2, -1)), strict=True)
    )
    torch.testing.assert_close(made, (upright + turned.flip(-2, -1)) / 2)


def test_no_condition_is_a_condition_of_a_region():
    canvas = Canvas(mixture(), (8, 20))
    made = Sampler(canvas, [Regions((1, UNCONDITIONAL), (LEFT, 1 - LEFT))], num_inference_steps=2)
    assert made.sample().x.isfinite().all()


def test_guidance_s_unconditional_rows_are_those_of_the_canvas():
    canvas = Canvas(mixture(), (8, 20))
    stack = [Regions((1, 2), (LEFT, 1 - LEFT)), CFG(3.0)]
    assert Sampler(canvas, stack, num_inference_steps=1).sample().stats.rows == 6 + 4


def test_the_plan_is_made_once(monkeypatch):
    made, own = [], Layout.masks

    def masks(self, size):
        made.append(size)
        return own(self, size)

    monkeypatch.setattr(Layout, "masks", masks)
    canvas = Canvas(mixture(), (8, 20))
    sampler = Sampler(canvas, [Regions((1, 2), (LEFT, 1 - LEFT))], num_inference_steps=5)
    sampler.sample()
    assert len(made) == 2  # when the Sampler is built, and at the first step


def test_they_are_in_the_recipe():
    plugin = Regions((3, "cat"), (LEFT, 1 - LEFT))
    again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
    assert again.conditions == (3, "cat")
    assert torch.equal(torch.as_tensor(again.masks[0]), LEFT)


def test_a_plain_model_raises_when_built():
    with pytest.raises(ValueError, match="Regions: the model must be a Canvas, got Gaussian"):
        Sampler(mixture(shape=(1, 8, 20)), [Regions((1, 2), (LEFT, 1 - LEFT))])


def test_unknown_conditions_raise_when_built():
    with pytest.raises(ValueError, match="Regions: "):
        Sampler(Canvas(mixture(), (8, 20)), [Regions((1, 77), (LEFT, 1 - LEFT))])


def test_an_empty_place_raises_when_built():
    with pytest.raises(ValueError, match="got none at row 0, column 10 of 8x20"):
        Sampler(Canvas(mixture(), (8, 20)), [Regions((1,), (LEFT,))])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (((),), ValueError),
        (((1, 2), (LEFT,)), ValueError),
        (((None,),), TypeError),
        (((Anagram({"identity": 1}),),), TypeError),
        ((1, 5), TypeError),
        (((1,), 5), TypeError),
        (((1,), None, 2.0), ValueError),
    ],
)
def test_bad_arguments_raise(arguments, error):
    with pytest.raises(error, match="Regions: "):
        Regions(*arguments)
