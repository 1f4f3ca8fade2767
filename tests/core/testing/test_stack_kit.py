"""The kit for stacks of plugins passes what is right, and names what is wrong."""

import re
from pathlib import Path

import pytest
import torch

from composer import UNCONDITIONAL, hookimpl
from composer.predictions import EPSILON, SAMPLE
from composer.testing import CheckFailed, check_stack, stack_checks
from composer_plugins import CFG, Anagram, Conjunction, Inpaint, SDEdit, TripleHybrid
from composer_plugins.transforms import Flip

IMAGE = torch.zeros(3, 32, 32)


@pytest.mark.parametrize(
    "stack",
    [
        [CFG(0.0)],
        [CFG(3.0, negative=2), Anagram({"detail_negative": 1, "negative": UNCONDITIONAL})],
        [Conjunction({1: 2.0, 2: -0.5})],
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


class VeryLate:
    """Lawful for six steps."""

    @hookimpl
    def noise_estimate(self, request):
        return (1.1 if request.step > 6 else 1.0) * (yield [request])[0]


class LouderInGray:
    @hookimpl
    def noise_estimate(self, request):
        return (1.1 if request.x.shape[1] == 1 else 1.0) * (yield [request])[0]


class Guidance:
    """Right; to be spoilt by what becomes of (conditional, unconditional, their difference)."""

    @hookimpl
    def noise_estimate(self, request):
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        return self.guided(cond, uncond, cond - uncond).replace(
            variance=self.variance(cond.variance, uncond.variance)
        )

    def guided(self, cond, uncond, difference):
        return uncond + 3.0 * difference

    def variance(self, cond, uncond):
        return cond


class GuidedByTheBatch(Guidance):
    """Images share the mean difference."""

    def guided(self, cond, uncond, difference):
        shared = difference.prediction.mean(0, keepdim=True).expand_as(cond.prediction)
        return uncond + 3.0 * difference.replace(prediction=shared)


class Extrapolated(Guidance):
    def variance(self, cond, uncond):
        return None if cond is None else uncond + 3.0 * (cond - uncond)


class Dropped(Guidance):
    def variance(self, cond, uncond):
        return None


class Cropped(Guidance):
    def variance(self, cond, uncond):
        return None if cond is None else cond[..., 1:]


class LeftInTheView:
    """The prediction is carried back, the variance is not."""

    @hookimpl
    def noise_estimate(self, request):
        [answer] = yield [request.seen_through(Flip())]
        return answer.seen_back(Flip()).replace(variance=answer.variance)


class Overrules:
    """Guidance around it does nothing."""

    @hookimpl
    def noise_estimate(self, request):
        one, other = yield [request.replace(condition=k) for k in (1, 2)]
        return (one + other) / 2


class OverrulesInPart:
    conditions = (4,)

    @hookimpl
    def noise_estimate(self, request):
        one, other = yield [request, request.replace(condition=4)]
        return (one + other) / 2


class SaysNothing:
    """Of the kind that it returns."""

    @hookimpl
    def noise_estimate(self, request):
        [estimate] = yield [request]
        return estimate.replace(prediction=estimate.x0, kind=SAMPLE)


class SaysSo(SaysNothing):
    predicts = SAMPLE


RETURNS = [
    f"returns_x_{clock}_{kind}"
    for clock in ("flow", "wide flow", "discrete")
    for kind in ("epsilon", "sample", "v", "flow")
]
SAME = ["same_sample_flow", "same_sample_wide flow", "same_sample_discrete"]
OTHER = ["other_channels"]
LAWS = {*RETURNS, *SAME, *OTHER}


@pytest.mark.parametrize(
    ("plugin", "names"),
    [
        (Unnormalised(), [*RETURNS, *SAME, *OTHER]),
        # Consistent in itself: every step flips the image once more, for every prediction.
        (NotUndone(), [*RETURNS, *OTHER, "variance"]),
        (OfEpsilonOnly(), [*(n for n in RETURNS if "epsilon" not in n), *SAME, *OTHER]),
        (LateOnly(), [*RETURNS, *SAME, *OTHER]),
        (VeryLate(), [*RETURNS, *OTHER]),
        # Over f(x) = x all answers are x: only the samples tell.
        (Rescaled(), [*SAME, "by_image"]),
        (LouderInGray(), OTHER),
        (GuidedByTheBatch(), ["by_image"]),
        (Extrapolated(), ["variance"]),
        (Dropped(), ["variance"]),
        (Cropped(), ["variance"]),
        (LeftInTheView(), ["variance"]),
        (Overrules(), ["leaves_decided_conditions"]),
        (OverrulesInPart(), ["leaves_decided_conditions"]),
        (Guidance(), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_wrong_with_a_stack_is_caught_by_name(plugin, names):
    outcomes = [check.outcome() for check in stack_checks([plugin], shape=(3, 16, 16))]
    failed = {o.check.name: o for o in outcomes if o.status == "failed"}
    assert sorted(failed) == sorted(names)
    assert all(("leaves the law" in o.advice) == (n in LAWS) for n, o in failed.items())


@pytest.mark.parametrize(
    ("stack", "why"),
    [
        ([CFG(2.0), SaysNothing()], "SaysNothing declares 'flow' and returns 'sample'"),
        ([Anagram({"identity": SaysNothing(), "flip": SaysNothing()})], "Anagram declares"),
        ([SaysSo(), CFG(2.0)], ""),
        ([Anagram({"identity": SaysSo(), "flip": SaysSo()})], ""),
        ([Anagram({"identity": 1, "flip": 2})], ""),
    ],
)
def test_what_estimates_predict_is_declared(stack, why):
    [check] = [c for c in stack_checks(stack, shape=(1, 8, 8)) if c.name == "predicts"]
    assert check.outcome().status == ("failed" if why else "passed")
    assert why in check.outcome().why


def test_every_check_has_its_words_in_the_documentation():
    page = (Path(__file__).parents[3] / "docs" / "write-a-plugin.md").read_text()
    names = {check.name for check in stack_checks([CFG(2.0)], shape=(1, 8, 8))}
    listed = set(re.findall(r"^\| `(\w+)\*?` \|", page, re.MULTILINE))
    assert {"returns_x_", "same_sample_"} | (names - {*RETURNS, *SAME}) <= listed


def test_check_stack_tells_what_to_mend():
    with pytest.raises(CheckFailed, match=r"variance \(.*\); take the variance of one answer"):
        check_stack([CFG(1.0), Dropped()], shape=(1, 8, 8))


class Writes:
    @hookimpl
    def noise_estimate(self, request):
        request.x.mul_(1.0)
        return (yield [request])[0]


def test_what_a_stack_raises_is_told_once_and_is_no_breach_of_the_law():
    with pytest.raises(CheckFailed) as caught:
        check_stack([Writes()], shape=(1, 8, 8))
    [_, reason] = str(caught.value).splitlines()
    assert reason.endswith("wrote into request.x. Work on a copy.)")
