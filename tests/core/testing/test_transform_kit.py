"""The kit passes every view of the library, and names what is wrong with a spoilt one."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import find, given
from hypothesis import strategies as st
from spoilt_conduct import CONDUCT, GlobalNumpy, LateFrame, NeedsContiguous, Unhashable
from spoilt_maps import MAPS, CopiedPixel, FlipLike, MinusWithoutVariance, Scaled

from composer import get_transform
from composer.testing import (
    Check,
    CheckFailed,
    check_transform,
    parametrize_with_checks,
    registered_transforms,
    strategies,
    transform_checks,
)
from composer.testing.checks import run_all
from composer.testing.transform import CONTRACT
from composer_plugins.transforms import (
    Flip,
    Negative,
    Orthogonal,
    Permutation,
    Skew,
)

REGISTERED = registered_transforms()
ROTATION = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]
MADE = [
    Flip("horizontal"),
    Skew(20.0, "rows"),
    Permutation(torch.randperm(784, generator=torch.Generator().manual_seed(0)).tolist()),
    Orthogonal(ROTATION, over="channels"),
    Flip() @ Skew() @ Negative(),
]


@parametrize_with_checks([*REGISTERED.values(), *MADE])
def test_every_view_keeps_the_contract(check):
    check()


def test_all_that_can_be_made_by_name_are_examined():
    assert {"identity", "flip", "rotate_cw", "skew", "negative", "jigsaw"} <= REGISTERED.keys()


SPOILT = [*MAPS, *CONDUCT]


def failures(transform):
    outcomes = [check.outcome() for check in transform_checks(transform)]
    return {o.check.name: o.why for o in outcomes if o.status == "failed"}


@pytest.mark.parametrize(("spoilt", "name"), SPOILT)
def test_a_spoilt_view_is_caught_by_name(spoilt, name):
    check = next(c for c in transform_checks(spoilt()) if c.name == name)
    with pytest.raises(CheckFailed, match=rf"{spoilt.__name__}.* fails {name} \(.*\); \w"):
        check()


def test_every_mathematical_and_practical_law_can_fail():
    """But for the recipe, which is spoilt below: it needs a registry."""
    assert {name for _, name in SPOILT} == {law.__name__ for law in CONTRACT} - {"recipe"}


def test_every_check_has_its_line_in_the_documentation():
    page = Path(__file__).parents[3] / "docs" / "write-a-transform.md"
    table = page.read_text().split("## The checks")[1].split("## A decomposition")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", "".join(rows)) == [law.__name__ for law in CONTRACT]


# Unspoilt where what is wrong is one thing only.
@pytest.mark.parametrize(
    ("spoilt", "names"),
    [
        (NeedsContiguous, {"non_contiguous"}),
        (LateFrame, {"frame"}),
        (Unhashable, {"equal_copies"}),
        (MinusWithoutVariance, {"variance"}),
        (GlobalNumpy, {"global_state"}),
    ],
)
def test_what_is_right_is_not_blamed(spoilt, names):
    assert failures(spoilt()).keys() == names


def test_check_transform_tells_of_all_that_failed_and_what_to_mend():
    with pytest.raises(CheckFailed) as caught:
        check_transform(Scaled())
    text = str(caught.value)
    assert "norm (|f(x)| of 28x28 images is off by the factor 0.001); move, rotate" in text
    assert "orthogonal_matrix (Q^T Q" in text
    with pytest.raises(TypeError, match="must be (a|) ?Transforms?( or the name of one)?, got"):
        check_transform(torch.flip)


class OnlyLarge(FlipLike):
    def accepts(self, height, width):
        return height == width == 2000

    @property
    def sizes(self):
        return "2000x2000"


def test_a_failure_for_one_reason_is_told_once():
    checks = [Check("it", name, lambda: "it is off", "mend it") for name in ("one", "two")]
    other = Check("it", "three", partial(next, iter(())), "mend it", advice_for_errors=False)
    with pytest.raises(CheckFailed) as caught:
        run_all([*checks, other])
    first, second = "one, two (it is off); mend it", "three (raised StopIteration: )"
    assert str(caught.value) == f"it fails\n  {first}\n  {second}"


def test_sizes_may_be_given():
    assert "Give shapes=" in transform_checks(OnlyLarge())[0].outcome().why
    shaped = transform_checks(FlipLike(), shapes=[(1, 5, 9)])
    assert {c.outcome().status for c in shaped} == {"passed", "skipped"}  # it is unregistered


@pytest.fixture
def registered(monkeypatch):
    from composer import Register, installed
    from composer.testing import transform_conduct

    def register(name, factory):
        offered = Register("test")
        offered.transform(name, factory)
        registry = installed().with_offers(offered)
        monkeypatch.setattr(transform_conduct, "installed", lambda: registry)

    return register


@dataclass(frozen=True)
class Forgetful(FlipLike):
    """Keeps its parameter under another name."""

    shift: int = 1

    def __post_init__(self):
        object.__setattr__(self, "shift", self.shift + 1)


class Opaque(FlipLike):
    def __init__(self, names=frozenset({1})):
        self.names = names


def test_a_recipe_must_bring_the_view_back(registered):
    check = next(c for c in transform_checks(Forgetful()) if c.name == "recipe")
    assert check.outcome().status == "skipped"
    registered("forgetful", Forgetful)
    with pytest.raises(CheckFailed, match=r"fails recipe \(Forgetful.* comes back as"):
        check()
    registered("opaque", Opaque)
    check = next(c for c in transform_checks(Opaque()) if c.name == "recipe")
    with pytest.raises(CheckFailed, match="a recipe cannot hold its parameters"):
        check()


@given(strategies.images(strategies.image_shapes(square=True), strategies.dtypes()), st.data())
def test_the_strategies_go_together(x, data):
    view = data.draw(strategies.transforms(*x.shape[-2:], x.shape[-3]))
    torch.testing.assert_close(
        view.inverse(view(x)), x, rtol=0, atol=64 * torch.finfo(x.dtype).eps * x.abs().max().item()
    )


def test_strategies_shrink_to_what_one_would_try_first():
    assert find(strategies.image_shapes(), lambda s: True) == (1, 1, 1)
    assert find(strategies.image_shapes(), lambda s: s[-1] > 2) == (1, 1, 3)
    assert find(strategies.dtypes(), lambda d: True) == torch.float64
    assert find(strategies.transforms(), lambda t: True) == get_transform("identity")
    seen = find(strategies.images(), lambda x: not torch.equal(CopiedPixel()(x), x.flip(-2)))
    assert seen.tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize(
    ("draw", "error", "sentence"),
    [
        (
            lambda: strategies.transforms(height=28),
            ValueError,
            "must both be given, got .* Give both",
        ),
        (lambda: strategies.transforms(-3, 28), ValueError, "height must be an integer of at leas"),
        (lambda: strategies.transforms("a", "b"), TypeError, "height must be an integer"),
        (lambda: strategies.transforms(28, 28, 0), ValueError, "channels must be an integer"),
        (lambda: find(strategies.image_shapes(0), bool), ValueError, "max_side must be an integ"),
    ],
)
def test_strategies_refuse_junk_in_one_sentence(draw, error, sentence):
    with pytest.raises(error, match=sentence):
        draw()
