"""The contract of backends: what the library has keeps it, and each way to break it is found."""

import itertools

import pytest
import torch
from conftest import mixture

import composer
from composer import UNCONDITIONAL, Output
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import (
    CheckFailed,
    GaussianMixtureBackend,
    IdentityBackend,
    OrthogonalCodecBackend,
    backend_checks,
    check_backend,
)

SCHEDULES = {"flow": FlowSchedule(), "discrete": DiscreteSchedule.linear()}
KINDS = sorted(PREDICTIONS)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_backends_keep_it(schedule, kind):
    check_backend(mixture(SCHEDULES[schedule], kind), [0, 3, "2"])
    identity = IdentityBackend((3, 4, 6), SCHEDULES[schedule], PREDICTIONS[kind])
    check_backend(identity, ["anything", 7], trained=False)


@pytest.mark.parametrize(
    ("name", "condition", "options"),
    [
        ("mnist", 3, {}),
        ("mnist", 3, {"share": False}),
        ("mnist-ddpm", 3, {}),
        ("mnist-latent", 3, {}),
        ("nouns", "tuba", {}),
        ("with_weak", 3, {}),
    ],
)
def test_the_shipped_backends_keep_it(name, condition, options):
    check_backend(composer.load_backend(name, **options), [condition])


def test_a_rounding_network_keeps_it_within_what_is_allowed():
    backend = composer.load_backend("mnist", dtype=torch.bfloat16)
    check_backend(backend, [3], tolerance=0.05)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("true", "said"), [*itertools.permutations(KINDS, 2)])
def test_a_model_that_predicts_something_else_than_it_says_is_found(schedule, true, said):
    right = mixture(SCHEDULES[schedule], true)

    class Mislabelled(type(right)):
        def evaluate(self, batch):
            return right.evaluate(batch)

    wrong = Mislabelled(right.means, right.stds, None, right.schedule, PREDICTIONS[said])
    assert failed(wrong, [1]) == {"predicts_what_it_says"}


def white_latents(schedule, kind):
    """The exact model of white latents, nearly as wide as their noise. (Were they as wide, their
    v would be 0 everywhere, without a gradient.)"""
    zero = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    inner = GaussianMixtureBackend(zero, [0.9], schedule=schedule, prediction=PREDICTIONS[kind])
    return OrthogonalCodecBackend(inner)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("true", KINDS)
def test_latents_as_wide_as_their_noise_keep_it(schedule, true):
    right = white_latents(SCHEDULES[schedule], true)
    check_backend(right, [0])
    # Of white noise "sample" and "v" cannot be told apart so far from the image.
    for said in {*KINDS} - {true, {"sample": "v", "v": "sample"}.get(true)}:
        inner = white_latents(SCHEDULES[schedule], said)
        object.__setattr__(inner, "evaluate", right.evaluate)
        assert failed(inner, [0]) == {"predicts_what_it_says"}
    pixels = right.inner
    assert failed(pixels, [0]) == {"predicts_what_it_says"}


def failed(backend, conditions, **options):
    checks = backend_checks(backend, conditions, **options)
    return {check.name for check in checks if check.outcome().status == "failed"}


class Spoilt(type(mixture())):
    """An exact backend, to be spoilt in one way; most declare no gradient."""

    differentiable = False

    @classmethod
    def make(cls, **fields):
        return cls(mixture().means, mixture().stds, **fields)


class Noisy(Spoilt):
    """Each call has another answer."""

    calls = itertools.count()

    def evaluate(self, batch):
        return Output(super().evaluate(batch).prediction + 0.1 * next(self.calls))


class Draws(Spoilt):
    def evaluate(self, batch):
        torch.randn(1)
        return super().evaluate(batch)


class MeansOverTheBatch(Spoilt):
    def evaluate(self, batch):
        prediction = super().evaluate(batch).prediction
        return Output(prediction - 0.1 * prediction.mean(0))


class OneTimeForAll(Spoilt):
    def evaluate(self, batch):
        return super().evaluate(batch.replace(times=batch.times[:1] * len(batch)))


class OneConditionForAll(Spoilt):
    def evaluate(self, batch):
        return super().evaluate(batch.replace(conditions=batch.conditions[:1] * len(batch)))


class OtherClock(Spoilt):
    def evaluate(self, batch):
        return super().evaluate(batch.replace(times=[1 - t for t in batch.times]))


class OtherSign(Spoilt):
    def evaluate(self, batch):
        return Output(-super().evaluate(batch).prediction)


class Sorted(Spoilt):
    def evaluate(self, batch):
        return super().evaluate(batch.take(sorted(range(len(batch)), key=batch.times.__getitem__)))


class ByRequest(Spoilt):
    """Takes each two rows, which it is mostly asked, to share time and condition."""

    def evaluate(self, batch):
        firsts = [row - row % 2 for row in range(len(batch))]
        times = [batch.times[row] for row in firsts]
        conditions = [batch.conditions[row] for row in firsts]
        return super().evaluate(batch.replace(times=times, conditions=conditions))


class ByIdentity(Spoilt):
    """Takes rows of different numbers for rows about different images."""

    def evaluate(self, batch):
        count = len({*batch.images})
        return Output(super().evaluate(batch).prediction * (1.0 if count < len(batch) else 1.1))


class Writes(Spoilt):
    def evaluate(self, batch):
        output = super().evaluate(batch)
        batch.x.mul_(0.999)
        return output


class Rounds(Spoilt):
    def evaluate(self, batch):
        return Output(super().evaluate(batch).prediction.float())


class Breaks(Spoilt):
    def evaluate(self, batch):
        return Output(super().evaluate(batch).prediction / 0)


class Flat(Spoilt):
    def evaluate(self, batch):
        return Output(super().evaluate(batch).prediction.flatten(1))


class Bare(Spoilt):
    def evaluate(self, batch):
        return super().evaluate(batch).prediction


class Lists(Spoilt):
    def encode(self, condition):
        return {super().encode(condition)}  # a set


class Fresh(Spoilt):
    def encode(self, condition):
        super().encode(condition)
        return object()


class NotAgain(Spoilt):
    def encode(self, condition):
        code = super().encode(condition)
        return code if code is UNCONDITIONAL else (code + 1) % 4


class RawErrors(Spoilt):
    def encode(self, condition):
        return condition if condition is UNCONDITIONAL else {1: 1}[condition]


class NoSolver(Spoilt):
    @classmethod
    def make(cls):
        return super().make(default_solver=None)


class Detached(Spoilt):
    """Declares a gradient and has none."""

    differentiable = True

    def evaluate(self, batch):
        return Output(super().evaluate(batch).prediction.detach())


class HalfDetached(Spoilt):
    """Has the gradient with respect to the upper half alone."""

    differentiable = True

    def evaluate(self, batch):
        upper, lower = batch.x.chunk(2, -2)
        return super().evaluate(batch.replace(x=torch.cat([upper, lower.detach()], -2)))


class StraightThrough(Spoilt):
    """Rounds its input, and passes the gradient as if it did not."""

    differentiable = True

    def evaluate(self, batch):
        rounded = batch.x + (batch.x.round(decimals=1) - batch.x).detach()
        return super().evaluate(batch.replace(x=rounded))


ANSWERS = {
    *("answers_each_row", "is_deterministic", "answers_alone_and_together"),
    *("answers_image_by_image", "answers_equal_tensors_equally", "predicts_what_it_says"),
    "answers_rows_of_any_condition",
}
MIXED = {"answers_alone_and_together", "answers_rows_of_any_condition"}


@pytest.mark.parametrize(
    ("kind", "check", "others"),
    [
        (Noisy, "is_deterministic", ANSWERS),
        (Draws, "is_deterministic", set()),
        (MeansOverTheBatch, "answers_image_by_image", MIXED),
        (OneTimeForAll, "answers_alone_and_together", set()),
        (OneConditionForAll, "answers_alone_and_together", set()),
        (OtherClock, "predicts_what_it_says", set()),
        (OtherSign, "predicts_what_it_says", set()),
        (Sorted, "answers_alone_and_together", {"answers_rows_of_any_condition"}),
        (ByRequest, "answers_rows_of_any_condition", {*MIXED, "answers_image_by_image"}),
        (ByIdentity, "answers_equal_tensors_equally", MIXED),
        (Writes, "leaves_x_alone", {"answers_alone_and_together", "samples"}),
        (Rounds, "answers_each_row", {"samples"}),
        (Breaks, "answers_each_row", {*ANSWERS, "samples"}),
        (Flat, "answers_each_row", {*ANSWERS, "samples"}),
        (Bare, "answers_each_row", {*ANSWERS, "leaves_x_alone", "samples"}),
        (Lists, "encodes_conditions", {*ANSWERS, "leaves_x_alone", "samples"}),
        (Fresh, "encodes_conditions", {*ANSWERS, "leaves_x_alone", "samples"}),
        (NotAgain, "encodes_conditions", set()),
        (RawErrors, "refuses_in_a_sentence", set()),
        (NoSolver, "has_its_attributes", {"samples"}),
        (Detached, "has_the_gradient_it_declares", set()),
        (HalfDetached, "has_the_gradient_it_declares", set()),
        (StraightThrough, "has_the_gradient_it_declares", set()),
    ],
)
def test_each_way_to_break_it_is_found(kind, check, others):
    found = failed(kind.make(), [1])
    assert check in found
    assert found <= {check, *others}


def test_a_failure_says_what_to_do():
    with pytest.raises(CheckFailed, match=r"Writes fails\n[^$]*leaves_x_alone .*; work on a copy"):
        check_backend(Writes.make(), [1])


def test_what_lies_beside_the_images_is_handed_over():
    class Enlarging(IdentityBackend):
        def evaluate(self, batch):
            return Output(batch.x + batch.beside["low"])

    backend = Enlarging((1, 4, 4))
    low = torch.ones(1, 1, 4, 4).double()
    assert "answers_each_row" in failed(backend, [1], trained=False)
    assert failed(backend, [1], trained=False, beside={"low": low}) == set()


def test_junk_is_one_sentence():
    class Conditional(Spoilt):
        def encode(self, condition):
            if condition is UNCONDITIONAL:
                raise ValueError("no")
            return super().encode(condition)

    with pytest.raises(ValueError, match="check_backend: Conditional does not encode UNCOND"):
        check_backend(Conditional.make())
    check_backend(Conditional.make(), [1])
    with pytest.raises(TypeError, match="backend must be a backend, got int"):
        check_backend(3)
    with pytest.raises(TypeError, match="conditions must be a list or tuple, got 3"):
        check_backend(mixture(), 3)
    with pytest.raises(ValueError, match="check_backend: tolerance must be a positive number"):
        check_backend(mixture(), tolerance=0)
