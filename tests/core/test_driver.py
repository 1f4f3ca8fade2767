"""The driver: what is asked, in how many rounds, and what reaches the model."""

import pytest
import torch
from conftest import mixture

from composer import UNCONDITIONAL, Sampler, get_transform, hookimpl
from composer.driver import resolve
from composer.model import Model
from composer.protocols import Output
from composer.requests import Request
from composer.stats import Stats
from composer_plugins import CFG, Anagram, Hybrid, TripleHybrid


class Counting:
    """A backend that records the rows of every call."""

    def __init__(self, backend):
        self.inner = backend
        self.rows = []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    @property
    def schedule(self):
        return self.inner.schedule

    def encode(self, condition):
        return self.inner.encode(condition)

    def evaluate(self, batch):
        self.rows.append(len(batch))
        return self.inner.evaluate(batch)


TWO_VIEWS = {"identity": 0, "rotate_180": 1}
EXPECTED = [
    ([], 1),
    ([CFG(3.0)], 2),
    ([CFG(1.0)], 1),
    ([CFG(0.0)], 1),
    ([Hybrid(0, 1), CFG(3.0)], 3),
    ([CFG(3.0), Hybrid(0, 1)], 3),
    ([TripleHybrid(0, 1, 2), CFG(3.0)], 4),
    ([Anagram(TWO_VIEWS), CFG(3.0)], 4),
    ([CFG(3.0), Anagram(TWO_VIEWS)], 4),
    ([Anagram(TWO_VIEWS, reduction="alternate"), CFG(3.0)], 2),
    ([Anagram(TWO_VIEWS, "weighted", weights=(1.0, 0.0)), CFG(3.0)], 2),
    ([Anagram({"identity": 0, "flip": 0, "rotate_180": 0}), CFG(3.0)], 6),
    # Both bands hold the same view: its unconditional rows are shared, 4 conditions + 2.
    ([Hybrid(Anagram(TWO_VIEWS), Anagram({"identity": 2, "rotate_180": 3})), CFG(3.0)], 6),
    # One band is an anagram: three conditions, and unconditional of two views.
    ([Hybrid(Anagram(TWO_VIEWS), 2), CFG(3.0)], 5),
    ([CFG(3.0), Hybrid(Anagram(TWO_VIEWS), 2)], 5),
]


@pytest.mark.parametrize(("plugins", "rows"), EXPECTED)
def test_rows_and_calls_of_each_stack(plugins, rows):
    condition = 2 if len(plugins) < 2 else None
    result = Sampler(mixture(), plugins, num_inference_steps=5).sample(condition, seeds=[0, 1])
    assert result.stats.calls == 5
    assert result.stats.evaluated == 5 * rows
    assert result.stats.requested >= result.stats.evaluated


def test_unspecified_and_unconditional_are_one_row():
    result = Sampler(mixture(), [CFG(3.0)], num_inference_steps=3).sample()
    assert (result.stats.requested, result.stats.evaluated) == (6, 3)


class Rounds:
    """Asks in several rounds, each time about another image unless it repeats itself."""

    def __init__(self, rounds, repeats=False):
        self.rounds, self.repeats = rounds, repeats

    @hookimpl
    def noise_estimate(self, request):
        for k in range(self.rounds):
            x = request.x if self.repeats else request.x + k
            (estimate,) = yield [request.replace(x=x)]
        return estimate.replace(x=request.x)


class Fork:
    """Asks twice in one round, so that everything inside runs side by side."""

    @hookimpl
    def noise_estimate(self, request):
        one, other = yield [request.fill(0), request.fill(1)]
        return 0.5 * one + 0.5 * other


def test_a_second_round_is_a_second_call():
    stats = Sampler(mixture(), [Rounds(3)], num_inference_steps=2).sample().stats
    assert (stats.calls, stats.requested) == (6, 6)


def test_a_question_repeated_in_a_later_round_has_its_answer_already():
    for plugins in ([Rounds(3, repeats=True)], [Rounds(3, repeats=True), CFG(2.0)]):
        stats = Sampler(mixture(), plugins, num_inference_steps=2).sample(1).stats
        assert (stats.calls, stats.evaluated) == (2, 2 * len(plugins))


def test_generators_at_one_depth_run_in_lockstep():
    stats = Sampler(mixture(), [Fork(), Rounds(3)], num_inference_steps=1).sample().stats
    assert (stats.calls, stats.evaluated) == (3, 6)


class Uneven:
    """One branch needs two rounds, the other one."""

    @hookimpl
    def noise_estimate(self, request):
        one, other = yield [request.replace(through=(Rounds(2),)).fill(0), request.fill(1)]
        return 0.5 * one + 0.5 * other


def test_a_branch_that_is_done_does_not_hold_the_others():
    stats = Sampler(mixture(), [Uneven()], num_inference_steps=1).sample().stats
    assert (stats.calls, stats.evaluated) == (2, 3)


class Constant:
    """Answers without asking."""

    @hookimpl
    def noise_estimate(self, request):
        if request.step:
            return self.kept.replace(x=request.x, t=request.t)
        (self.kept,) = yield [request]
        return self.kept


def test_no_plugin_is_printed_in_a_run():
    """A name for messages must not cost the repr of a plugin, which may hold a network."""

    class Silent(CFG):
        def __repr__(self):
            raise AssertionError("printed")

    stack = [Silent(3.0), Anagram({"identity": 0, "flip": 1})]
    assert Sampler(mixture(), stack, num_inference_steps=2).sample().stats.calls == 2


def test_a_plugin_may_answer_without_asking():
    stats = Sampler(mixture(), [Constant()], num_inference_steps=4).sample().stats
    assert (stats.calls, stats.evaluated) == (1, 1)


@pytest.mark.parametrize("max_rows", [1, 2, 3, 5, 8, 32, None])
def test_the_memory_bound_holds_and_changes_nothing(max_rows):
    backend = Counting(mixture())
    stack = [Anagram(TWO_VIEWS), CFG(3.0)]
    bounded = Sampler(backend, stack, num_inference_steps=3, max_rows=max_rows)
    free = Sampler(mixture(), stack, num_inference_steps=3)
    x = bounded.sample(seeds=range(8)).x
    torch.testing.assert_close(x, free.sample(seeds=range(8)).x)
    assert max(backend.rows) <= (max_rows or 32)
    assert sum(backend.rows) == 3 * 32


def test_chunks_keep_requests_about_one_image_together():
    """So that a backend that shares an encoder among them still does."""
    seen = []

    class Watching(Counting):
        def evaluate(self, batch):
            seen.append(len({*batch.images}))
            return self.inner.evaluate(batch)

    sampler = Sampler(Watching(mixture()), [CFG(3.0)], num_inference_steps=1, max_rows=4)
    sampler.sample(0, seeds=range(8))
    assert seen == [2, 2, 2, 2]


def test_resolve_is_a_plain_generator():
    """The tree can be driven by a table instead of a model."""
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    backend = mixture()
    model = Model(backend, None, Stats())
    request = Request(x, 0.5, 1, schedule=backend.schedule)
    estimate = resolve(request, [CFG(2.0).noise_estimate], model)
    cond, uncond = model([request, request.replace(condition=UNCONDITIONAL)])
    expected = uncond.prediction + 2.0 * (cond.prediction - uncond.prediction)
    torch.testing.assert_close(estimate.prediction, expected, rtol=1e-13, atol=1e-13)


class NoGenerator:
    @hookimpl
    def noise_estimate(self, request):
        return request


class YieldsNoRequest:
    @hookimpl
    def noise_estimate(self, request):
        (estimate,) = yield ["request"]
        return estimate


class YieldsBareRequest:
    @hookimpl
    def noise_estimate(self, request):
        return (yield request)


class ReturnsNothing:
    @hookimpl
    def noise_estimate(self, request):
        yield [request]


def test_a_noise_estimate_that_is_no_generator_is_refused_when_built():
    with pytest.raises(TypeError, match=r"NoGenerator\.noise_estimate must be a generator.*yield"):
        Sampler(mixture(), [NoGenerator()])


@pytest.mark.parametrize("plugin", [YieldsNoRequest(), YieldsBareRequest()])
def test_what_is_yielded_must_be_requests(plugin):
    with pytest.raises(TypeError, match=rf"{type(plugin).__name__}\.noise_estimate must yield"):
        Sampler(mixture(), [plugin]).sample()


def test_what_is_returned_must_be_an_estimate():
    with pytest.raises(
        TypeError, match=r"ReturnsNothing\.noise_estimate must return an Estimate, got NoneType"
    ):
        Sampler(mixture(), [ReturnsNothing()]).sample()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_from_the_model_names_step_and_request(bad):
    class Broken(Counting):
        def evaluate(self, batch):
            output = self.inner.evaluate(batch)
            self.rows.append(1)
            if len(self.rows) == 3:
                output.prediction[1, 0, 0, 0] = bad
            return output

    sampler = Sampler(Broken(mixture()), [CFG(2.0)], num_inference_steps=5)
    with pytest.raises(ArithmeticError, match=r"step 2 .*condition UNCONDITIONAL"):
        sampler.sample(1)


def wide(output):
    return output._replace(prediction=output.prediction.repeat(1, 2, 1, 1))


RETURNED = {
    "short": (
        lambda o: Output(o.prediction[:-1]),
        r"shape \(2, 1, 8, 8\) of x, got \(1, 1, 8, 8",
    ),
    "shape": (wide, "Put a learned variance into"),
    "tensor": (lambda o: o.prediction, "must return one composer.Output"),
    "list": (lambda o: [o], "of all rows, got list"),
    "none": (lambda o: None, "of all rows, got NoneType"),
    "numpy": (lambda o: Output(o.prediction.numpy()), "floating-point tensor, got ndarray"),
    "whole": (
        lambda o: Output(o.prediction.long()),
        "floating-point tensor, got a tensor of torch.int64",
    ),
    "variance": (
        lambda o: o._replace(variance=o.prediction[:, :, :1, :1]),
        "variance must have the shape",
    ),
}


@pytest.mark.parametrize("name", RETURNED)
def test_what_a_backend_returns_is_checked(name):
    change, sentence = RETURNED[name]

    class Wrong(Counting):
        def evaluate(self, batch):
            return change(self.inner.evaluate(batch))

    with pytest.raises((ValueError, TypeError), match=rf"Wrong\.evaluate.*{sentence}"):
        Sampler(Wrong(mixture()), [CFG(2.0)]).sample(1)


def test_a_backend_that_writes_into_x_is_refused():
    class Writing(Counting):
        def evaluate(self, batch):
            output = self.inner.evaluate(batch)
            batch.x.mul_(0.5)
            return output

    for bound in (None, 2):
        with pytest.raises(ValueError, match="Writing.evaluate wrote into the batch's x"):
            Sampler(Writing(mixture()), [CFG(2.0)], max_rows=bound).sample(1, seeds=[0, 1])


def test_chunks_are_as_few_as_the_bound_allows():
    backend = Counting(mixture())
    views = Anagram({"identity": 0, "flip": 1, "rotate_180": 2, "skew": 3, "negative": 0})
    Sampler(backend, [views], num_inference_steps=1, max_rows=4).sample(seeds=range(8))
    assert backend.rows == [4] * 8 + [4] * 2


def test_estimates_are_a_vector_space():
    backend = mixture()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    a, b = (Sampler(backend).denoise(x, 0.5, k) for k in (0, 1))
    expected = -(2 * a.prediction + b.prediction * 0.5 - a.prediction) / 4
    assert torch.equal((-(2 * a + b * 0.5 - a) / 4).prediction, expected)


def test_a_request_can_be_made_unspecified_again():
    request = Request(torch.zeros(1), 0.5, 3)
    assert request.replace(t=0.1).condition == 3
    assert request.replace(condition=None).condition is None


def test_what_lies_beside_all_images_is_in_every_part():
    class Looks(Counting):
        def evaluate(self, batch):
            assert batch.beside["all"].shape == batch.x.shape
            assert batch.beside["each"].tolist() == batch.x[:, 0, 0, 0].tolist()
            return super().evaluate(batch)

    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    beside = {"all": torch.zeros(1, 1, 8, 8), "each": x[:, 0, 0, 0]}
    backend = Looks(mixture())
    model = Model(backend, max_rows=2, stats=Stats())
    request = Request(x, 0.5, 1, beside=beside, schedule=backend.schedule)
    (estimate,) = model([request.seen_through(get_transform("identity"))])
    assert backend.rows == [2, 2, 1]
    assert len(estimate.prediction) == 5
    turned = request.seen_through(get_transform("negative"))
    assert torch.equal(turned.beside["each"], beside["each"])
    assert torch.equal(turned.x, -x)
