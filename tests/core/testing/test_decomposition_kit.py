"""The kit for decompositions passes what is right, and names what is wrong."""

import itertools

import pytest
import torch

from composer.testing import (
    CheckFailed,
    check_decomposition,
    decomposition_checks,
    parametrize_with_checks,
    registered_decompositions,
)
from composer.testing.decomposition import CONTRACT
from composer_plugins import GaussianBlur, Masks, TripleHybrid
from composer_plugins.transforms import Flip

BLUR = GaussianBlur(2.0)
RAMP = torch.linspace(0, 1, 28, dtype=torch.float64).expand(28, 28)


def rest(x):
    return x - BLUR(x)


REGISTERED = registered_decompositions()


@parametrize_with_checks(
    [*REGISTERED.values(), TripleHybrid(1, 2, 3), (BLUR, rest), [torch.clone], Flip()]
)
def test_what_is_right_passes(check):
    check()


def test_all_that_can_be_made_by_name_are_examined():
    assert {"bands", "gray_colour", "laplacian_pyramid", "motion_blur"} <= REGISTERED.keys()


def pair(part):
    return part, lambda x: x - part(x.clone())


def pixels(x):
    """Three pixels wide, whatever the size."""
    return sum(x.roll(k, -1) for k in range(-4, 5)) / 9


def wrong_rest(where):
    """A third and the rest, but for images where the rest is too much."""
    return (lambda x: x / 3), (lambda x: 2 / 3 * x * (1.5 if where(x) else 1.0))


def sets_dtype(x):
    torch.set_default_dtype(torch.float64)
    return x / 2


COUNT = itertools.count()

SPOILT = [
    ((BLUR, BLUR), "sum_to_identity"),
    ((BLUR, lambda x: x - BLUR(x).float()), "sum_to_identity"),
    (pair(lambda x: x[..., 1:, :]), "shape"),
    (pair(lambda x: x / 0), "shape"),
    (pair(torch.tanh), "linear"),
    (pair(lambda x: x.median() + 0 * x), "linear"),
    (pair(lambda x: x.roll(1, 0)), "by_image"),
    (pair(lambda x: x.mean(0, keepdim=True).expand_as(x)), "by_image"),
    ((lambda x: x.mul_(0.5), lambda x: 0.5 * x), "no_mutation"),
    (pair(lambda x: x.double() / 2), "dtype"),
    (pair(lambda x: x * (next(COUNT) % 2)), "deterministic"),
    (pair(pixels), "scales"),
    (pair(lambda x: x * RAMP.to(x)), "shape"),
    ((torch.clone, torch.zeros_like), "nonzero"),
    (wrong_rest(lambda x: len(x) > 2), "by_image"),
    (wrong_rest(lambda x: x.shape[-3] == 1), "sum_to_identity"),
    (wrong_rest(lambda x: x.shape[-1] < 20), "sum_to_identity"),
    (wrong_rest(lambda x: x.shape[-1] > 256), "sum_to_identity"),
    (wrong_rest(lambda x: x.shape[-2] > 256), "sum_to_identity"),
    (wrong_rest(lambda x: x.shape[-1] > 2 * x.shape[-2]), "sum_to_identity"),
    (pair(lambda x: x.view(-1).view(x.shape) / 2), "non_contiguous"),
    (pair(lambda x: x / (2 + 0 * torch.rand(()))), "global_state"),
    (pair(sets_dtype), "global_state"),
]


@pytest.mark.parametrize(("parts", "name"), SPOILT)
def test_a_spoilt_decomposition_is_caught_by_name(parts, name):
    check = next(c for c in decomposition_checks(parts) if c.name == name)
    with pytest.raises(CheckFailed, match=rf" fails {name} \(.*\); \w"):
        check()


def test_every_law_of_decompositions_can_fail():
    assert {name for _, name in SPOILT} == {law.__name__ for law in CONTRACT}


def test_what_is_right_is_not_blamed():
    outcomes = [c.outcome() for c in decomposition_checks(pair(pixels))]
    assert [o.check.name for o in outcomes if o.status != "passed"] == ["scales"]


def test_a_long_subject_is_cut():
    """A tensor would fill pages, of every check of every test."""
    masks = Masks([RAMP, 1 - RAMP])
    check = decomposition_checks(masks, shapes=[(3, 28, 28)])[0]
    assert len(check.subject) == 80
    assert check.subject.startswith("Masks(masks=(tensor([[")
    assert "\n" not in str(check)


def test_check_decomposition_tells_what_to_mend():
    with pytest.raises(CheckFailed, match=r"sum_to_identity \(.*\); make the last part the rest"):
        check_decomposition((BLUR, BLUR))
    with pytest.raises(TypeError, match="decomposition must be a sequence of functions"):
        check_decomposition(3)
    with pytest.raises(TypeError, match="decomposition must be a sequence of functions"):
        check_decomposition(())
    with pytest.raises(
        ValueError, match=r"shapes: Masks.* does not accept \(3, 20, 28\) \(.*proportions"
    ):
        check_decomposition(Masks([RAMP, 1 - RAMP]), shapes=[(3, 20, 28)])


def test_things_may_be_examined_at_shapes_of_ones_own():
    mark = parametrize_with_checks([Flip(), Masks([RAMP, 1 - RAMP])], shapes=[(1, 28, 28)])
    checks = mark.mark.args[1]
    assert {check.subject[:5] for check in checks} == {"Flip(", "Masks"}
    assert not [o for check in checks if (o := check.outcome()).status == "failed"]
