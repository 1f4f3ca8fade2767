"""Estimates of one kind combine; those of two are refused."""

import pytest
import torch
from conftest import mixture

from composer import Request, Sampler, State, get_transform, hookimpl
from composer.predictions import PREDICTIONS, SAMPLE
from composer.requests import combine
from composer.schedules import DiscreteSchedule
from composer_plugins import APG, CFG, Anagram, DynamicThreshold, Hybrid, Rescale

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_a_new_prediction_says_what_it_means():
    plain = Sampler(mixture()).denoise(X, 0.3, 1)
    same = plain.replace(prediction=plain.x0, kind=SAMPLE)
    torch.testing.assert_close(same.x0, plain.x0)
    torch.testing.assert_close(same.noise, plain.noise)
    assert plain.replace(prediction=plain.x0).kind is plain.kind


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_an_estimate_with_another_image_or_noise_has_it_at_both_ends(kind):
    """Where there is no noise, or no signal, the other is zero and nothing is divided by it."""
    schedule, other = DiscreteSchedule([0.9, 0.4, 0.0]), torch.full_like(X, 0.7)
    for t in (schedule.time_at(0.0), 1.0, schedule.time_at(1.0)):
        sampler = Sampler(mixture(schedule, kind), num_inference_steps=3)
        plain = sampler.denoise(X, t, 1)
        alpha, sigma = schedule.at(t)
        changed = plain.with_x0(other)
        torch.testing.assert_close(changed.x0, other)
        expected = (X - alpha * other) / sigma if sigma else other * 0
        torch.testing.assert_close(changed.noise, expected)
        changed = plain.with_noise(other)
        torch.testing.assert_close(changed.noise, other)
        expected = (X - sigma * other) / alpha if alpha else other * 0
        torch.testing.assert_close(changed.x0, expected)


@pytest.mark.parametrize("factor", ["2", None, [1.0]])
def test_an_estimate_is_multiplied_by_numbers_alone(factor):
    estimate = Sampler(mixture()).denoise(X, 0.3, 1)
    for attempt in (
        lambda: estimate * factor,
        lambda: factor * estimate,
        lambda: estimate / factor,
    ):
        with pytest.raises(
            TypeError, match="factor of an estimate must be a number or a tensor, got"
        ):
            attempt()
    with pytest.raises(TypeError, match="factor of an estimate must be a number or a tensor, got"):
        estimate * estimate


def test_what_may_be_none_can_be_made_none_again():
    estimate = Sampler(mixture()).denoise(X, 0.3, 1)
    with_variance = estimate.replace(variance=X)
    assert with_variance.replace(prediction=X).variance is X
    assert with_variance.replace(variance=None).variance is None
    request = Request(X, 0.3, 1, model="weak")
    assert request.replace(x=2 * X).model == "weak"
    assert request.replace(model=None).model is None
    assert request.replace(condition=None).condition is None


def test_a_request_knows_the_next_time_and_what_the_run_carries():
    """Derived ones too; outside of a run there is neither."""

    class Counts:
        def __init__(self):
            self.seen = []

        @hookimpl
        def noise_estimate(self, request):
            for one in (request.replace(condition=2), request.seen_through(get_transform("flip"))):
                assert (one.t_next, one.carried) == (request.t_next, request.carried)
            steps = request.carried.get(self)
            self.seen.append((request.t, request.t_next, None if steps is None else int(steps[0])))
            request.carried[self] = torch.full((len(request.x),), request.step)
            return (yield [request])[0]

    plugin = Counts()
    sampler = Sampler(mixture(), [plugin], None, 2)
    for _ in range(2):  # a run begins with nothing
        sampler.sample(1, seeds=[0, 1])
    sampler.denoise(X, 0.5, 1)
    run = [(0.0, 0.5, None), (0.5, 1.0, 0)]
    assert plugin.seen == [*run, *run, (0.5, None, None)]


def test_a_request_draws_noise_from_its_images_own_generators():
    """Also one derived from it; outside of a run the same each time, by the seeds' numbers."""
    drawn = []

    class Draws:
        @hookimpl
        def noise_estimate(self, request):
            turned = request.seen_through(get_transform("flip")).rows(
                torch.tensor([len(request.x) - 1])
            )
            drawn.append((request.randn(), turned.randn()))
            return (yield [request])[0]

    sampler = Sampler(mixture(), [Draws()], None, 1)
    sampler.sample(1, seeds=[4, 7])
    ours = [torch.Generator().manual_seed(seed) for seed in (4, 7)]
    first, again = drawn.pop()
    for rows, generators in ((None, ours), (first, ours), (again, ours[1:])):  # the start is drawn
        expected = [torch.randn(1, 1, 8, 8, generator=g, dtype=torch.float64) for g in generators]
        assert rows is None or torch.equal(rows, torch.cat(expected))
    x = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    for _ in range(2):
        sampler.denoise(x, 0.5, 1, origin=[0, 1])
        sampler.denoise(x[1:], 0.5, 1, origin=[1])
    assert torch.equal(drawn[0][0], drawn[2][0])
    assert torch.equal(drawn[0][0][1:], drawn[1][0])
    assert torch.equal(drawn[0][0][1:], drawn[0][1])
    assert not torch.equal(*drawn[0][0])


def test_what_is_carried_moves_with_the_images():
    """By rows of tensors, or by ``rows`` of other things; a snapshot keeps its own."""
    estimate = Sampler(mixture()).denoise(torch.cat([X, 2 * X, 3 * X]), 0.3, 1)
    generators = tuple(torch.Generator().manual_seed(k) for k in range(3))
    state = State(estimate.x, [0.0, 1.0], None, (7,), mixture(), 1, generators=generators)
    state.origin = (0, 0, 0)
    state.carried = {"numbers": torch.arange(3), "estimate": estimate}
    before = state.snapshot()
    state.copy(torch.tensor([2, 0, 0]))
    assert state.carried["numbers"].tolist() == [2, 0, 0]
    assert torch.equal(state.carried["estimate"].x, state.x)
    state.select(torch.tensor([1]))
    assert state.carried["numbers"].tolist() == [0]
    assert before.carried["numbers"].tolist() == [0, 1, 2]


def test_estimates_of_two_kinds_are_not_added():
    plain = Sampler(mixture()).denoise(X, 0.3, 1)
    other = plain.replace(prediction=plain.x0, kind=SAMPLE)
    for attempt in (
        lambda: plain + other,
        lambda: other - plain,
        lambda: combine((1.0, 1.0), (plain, other)),
    ):
        with pytest.raises(ValueError, match="must have the same kind to be combined"):
            attempt()


def same_kind(plugin):
    return Anagram({"identity": plugin, "flip": plugin})


@pytest.mark.parametrize(
    ("stack", "kinds"),
    [
        (Anagram({"identity": Rescale(CFG(2.0)), "flip": 1}), "flow and v"),
        (Hybrid(APG(CFG(2.0)), same_kind(Rescale(CFG(2.0)))), "sample and v"),
        (Hybrid(same_kind(DynamicThreshold()), 1), "flow and sample"),
        (Hybrid(same_kind(DynamicThreshold()), APG(CFG(2.0))), ""),
        (Hybrid(same_kind(1), same_kind(CFG(2.0))), ""),
        (Rescale(same_kind(APG(CFG(2.0)))), ""),
    ],
)
def test_kinds_are_known_before_any_estimate(stack, kinds):
    if not kinds:
        Sampler(mixture(), [stack]).denoise(X, 0.3)
        return
    with pytest.raises(ValueError, match=f"would combine estimates of the kinds {kinds}"):
        Sampler(mixture(), [stack])


def test_a_threshold_in_one_view_of_two_is_refused():
    stack = [Anagram({"identity": DynamicThreshold(), "flip": 1})]
    with pytest.raises(
        ValueError, match="Anagram would combine estimates of the kinds flow and sa"
    ):
        Sampler(mixture(), stack)  # when it is built, at no model call
    Sampler(mixture(), [Anagram({"identity": DynamicThreshold(), "flip": DynamicThreshold()})])
