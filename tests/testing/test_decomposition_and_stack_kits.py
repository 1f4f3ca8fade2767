"""The kits for decompositions and stacks pass what is right, and name what is wrong."""

import itertools

import pytest
import torch

from composer import UNCONDITIONAL, hookimpl
from composer.predictions import EPSILON
from composer.testing import (
    CheckFailed,
    GaussianMixtureBackend,
    check_decomposition,
    check_stack,
    check_transform,
    decomposition_checks,
    parametrize_with_checks,
    registered_decompositions,
    stack_checks,
)
from composer.testing.decomposition import CONTRACT
from composer_plugins import CFG, Anagram, GaussianBlur, Inpaint, SDEdit, TripleHybrid
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


def test_check_decomposition_tells_what_to_mend():
    with pytest.raises(CheckFailed, match=r"sum_to_identity \(.*\); make the last part the rest"):
        check_decomposition((BLUR, BLUR))
    with pytest.raises(TypeError, match="is no decomposition; give functions"):
        check_decomposition(3)
    with pytest.raises(TypeError, match="is no decomposition"):
        check_decomposition(())


IMAGE = torch.zeros(3, 32, 32)


@pytest.mark.parametrize(
    "stack",
    [
        [],
        [CFG(4.0)],
        [CFG(3.0, interval=(0.2, 0.6))],
        [Anagram({"identity": 1, "rotate_cw": 2, "negative": 3}), CFG(4.0)],
        [CFG(2.0), TripleHybrid(1, Anagram({"jigsaw": 2, "skew": 3}, "alternate"), 4)],
        [SDEdit(IMAGE), Inpaint(IMAGE, torch.eye(32)), CFG(2.0)],
    ],
    ids=lambda stack: "-".join(type(plugin).__name__ for plugin in stack),
)
def test_lawful_stacks_pass(stack):
    check_stack(stack)


class Rescaled:
    """Guidance whose result is brought to the conditional one's spread: it leaves the law."""

    @hookimpl
    def noise_estimate(self, request):
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        guided = uncond + 5.0 * (cond - uncond)
        return guided * (cond.prediction.std() / guided.prediction.std())


class Unnormalised:
    @hookimpl
    def noise_estimate(self, request):
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        return 1.001 * cond + 0.001 * uncond


class NotUndone:
    """A view that is not carried back."""

    @hookimpl
    def noise_estimate(self, request):
        return (yield [request.seen_through(Flip())])[0]


class OfEpsilonOnly:
    """Lawful for one prediction type."""

    @hookimpl
    def noise_estimate(self, request):
        estimate = (yield [request])[0]
        return estimate if estimate.kind is EPSILON else 1.1 * estimate


class LateOnly:
    """Lawful at the first step."""

    @hookimpl
    def noise_estimate(self, request):
        return (1.1 if request.step == 3 else 1.0) * (yield [request])[0]


RETURNS = [
    f"returns_x_{clock}_{kind}"
    for clock in ("flow", "discrete")
    for kind in ("epsilon", "sample", "v", "flow")
]
SAME = ["same_sample_flow", "same_sample_discrete"]


@pytest.mark.parametrize(
    ("plugin", "names"),
    [
        (Unnormalised(), [*RETURNS, *SAME]),
        # Consistent in itself: every step flips the image once more, for every prediction.
        (NotUndone(), RETURNS),
        (OfEpsilonOnly(), [*(n for n in RETURNS if "epsilon" not in n), *SAME]),
        (LateOnly(), [*RETURNS, *SAME]),
        # Over f(x) = x all answers are x: only the samples tell.
        (Rescaled(), SAME),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_leaves_the_law_is_caught_by_name(plugin, names):
    outcomes = [check.outcome() for check in stack_checks([plugin])]
    assert sorted(o.check.name for o in outcomes if o.status == "failed") == sorted(names)
    with pytest.raises(CheckFailed, match="leaves the law: sum_i A_i V_i is not the identity"):
        check_stack([CFG(1.0), plugin])


@pytest.mark.parametrize(
    ("check", "error", "sentence"),
    [
        (lambda: check_stack(5), TypeError, "plugins must be a list of plugin objects, got 5"),
        (lambda: check_stack([5]), TypeError, "int answers no hook"),
        (lambda: check_stack([CFG]), TypeError, r"write CFG\(...\)"),
        (lambda: check_stack([CFG(2.0)], condition=10), ValueError, "a component 0 to 9, got 10"),
        (lambda: check_stack([CFG(2.0)], condition=[1]), TypeError, "must be hashable"),
        (lambda: check_stack([CFG(2.0)], shape=32), TypeError, "a shape must be a list or tuple"),
        (lambda: check_stack([CFG(2.0)], shape=(3, 32)), ValueError, r"must be \(C, H, W\)"),
        (lambda: check_decomposition([BLUR], shapes=[]), ValueError, "shapes is empty"),
        (lambda: check_decomposition([BLUR], shapes=[(3, 0, 4)]), ValueError, "at least 1, got 0"),
        (lambda: check_transform(5), TypeError, "5 is no Transform"),
        (lambda: check_transform(Flip(), shapes=()), ValueError, "shapes is empty"),
        (lambda: check_transform(Flip(), shapes=28), TypeError, "shapes must be a list or tuple"),
        (lambda: parametrize_with_checks([]), ValueError, "nothing to check: things is empty"),
        (lambda: parametrize_with_checks(5), TypeError, "a list of transforms and decompositions"),
        (lambda: registered_decompositions(5), TypeError, "registry must be a Registry"),
        (lambda: GaussianMixtureBackend([0], [1]), TypeError, r"must be a tensor \(K, C, H, W\)"),
        (lambda: GaussianMixtureBackend(IMAGE[None], ["1"]), TypeError, "stds must be a number"),
        (lambda: GaussianMixtureBackend(IMAGE[None], [0.0]), ValueError, "stds must be a positive"),
    ],
)
def test_junk_is_one_sentence(check, error, sentence):
    with pytest.raises(error, match=sentence) as raised:
        check()
    assert "\n" not in str(raised.value)
