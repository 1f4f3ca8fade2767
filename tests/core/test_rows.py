"""Flat rows: one condition, or one scale, an image; what a call holds, and how it is cut."""

import math

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st
from test_driver import Counting

import composer
from composer import UNCONDITIONAL, Each, Output, Request, Sampler, get_transform
from composer.batch import Batch, grouped
from composer.model import batch_of
from composer.reparametrised import Reparametrised
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM
from composer.testing import IdentityBackend
from composer_plugins import (
    CFG,
    Anagram,
    Autoguidance,
    Conjunction,
    FeynmanKac,
    Hybrid,
    Particles,
    SDEdit,
)
from composer_plugins.backends.with_weak import WithWeak

SEEDS = [4, 9, 2]
CONDITIONS = [1, 3, UNCONDITIONAL]
STACKS = {
    "none": lambda: [],
    "guided": lambda: [CFG(3.0)],
    "autoguided": lambda: [Autoguidance(2.0)],
    "views": lambda: [Anagram({"identity": None, "flip": None}), CFG(2.0)],
    "noisy": lambda: [SDEdit(torch.zeros(1, 8, 8), strength=0.6), CFG(2.0)],
}


def shown(kind):
    """An exact backend, or what stands around one."""
    if kind == "plain":
        return mixture()
    if kind == "other path":
        return Reparametrised(mixture(), DiscreteSchedule.linear(), mixture().prediction, DDIM())
    return WithWeak(mixture(), mixture())


def assert_each_alone(sampler_of, conditions, seeds=SEEDS):
    """An image of a call is the image that its seed has alone."""
    together = sampler_of(slice(None)).sample(conditions, seeds).x
    for k, seed in enumerate(seeds):
        condition = conditions[k] if isinstance(conditions, list) else conditions
        alone = sampler_of(slice(k, k + 1)).sample(condition, [seed]).x
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("stack", "kind"),
    [
        *((stack, "plain") for stack in STACKS if stack != "autoguided"),
        *((stack, "other path") for stack in ("guided", "views")),
        *((stack, "weak") for stack in ("guided", "autoguided")),
    ],
)
def test_each_seed_follows_its_own_condition(stack, kind):
    sampler = Sampler(shown(kind), STACKS[stack](), num_inference_steps=4)
    assert_each_alone(lambda _: sampler, CONDITIONS)
    x = sampler.sample(CONDITIONS, SEEDS).x
    assert (x - sampler.sample(1, SEEDS).x)[1:].abs().flatten(1).amax(1).min() > 1e-3


def test_plugins_fill_one_condition_a_seed():
    def sampler_of(seeds, views=([0, 2, 1], [3, 1, 2])):
        one, other = (Each(view[seeds]) for view in views)
        stack = [Anagram({"identity": one, "flip": Hybrid(other, 2)}), CFG(2.0)]
        return Sampler(mixture(), stack, num_inference_steps=3)

    assert_each_alone(sampler_of, None)


@pytest.mark.parametrize("given_as", [list, tuple, torch.tensor])
@pytest.mark.parametrize("outer", [True, False])
def test_each_seed_has_its_own_scale(given_as, outer):
    scales = [1.0, 4.0, -0.5]

    def sampler_of(seeds):
        guide = CFG(given_as(scales[seeds]))
        views = Anagram({"identity": 0, "rotate_180": 1})
        stack = [guide, views] if outer else [views, guide]
        return Sampler(mixture(), stack, num_inference_steps=3)

    assert_each_alone(sampler_of, None)
    plain = [Sampler(mixture(), [CFG(g)], num_inference_steps=3) for g in scales]
    assert torch.allclose(
        Sampler(mixture(), [CFG(given_as(scales))], num_inference_steps=3).sample(1, SEEDS).x,
        torch.cat([s.sample(1, [k]).x for s, k in zip(plain, SEEDS, strict=True)]),
        rtol=1e-9,
        atol=1e-9,
    )


def nearest(x):
    """How near images are to grey."""
    return -x.square().flatten(1).sum(1)


@pytest.mark.parametrize(
    "follow",
    [Particles(nearest, ((1.0, 4), (0.6, 2), (0.0, 1))), FeynmanKac(nearest, 3)],
    ids=lambda follow: type(follow).__name__,
)
def test_candidates_keep_the_condition_and_scale_of_their_seed(follow):
    """Of several images a seed, whichever are dropped and copied."""

    def sampler_of(seeds):
        stack = [follow, CFG([2.0, 1.5, 3.0][seeds])]
        return Sampler(mixture(), stack, num_inference_steps=6)

    assert_each_alone(sampler_of, [1, 3, 0])


def test_one_denoising_each():
    x, times = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0.3, 0.5, 0.9])
    scales = [2.0, 3.0, 0.5]
    for t in (0.4, times):
        together = Sampler(mixture(), [CFG(scales)]).denoise(x, t, [0, 1, 2])
        for k, g in enumerate(scales):
            time = t if t is not times else times[k].item()
            alone = Sampler(mixture(), [CFG(g)]).denoise(x[k : k + 1], time, k)
            torch.testing.assert_close(together.x0[k : k + 1], alone.x0, rtol=1e-9, atol=1e-9)


@given(
    seeds=st.integers(1, 6),
    views=st.sampled_from([["identity"], ["identity", "flip"], ["flip", "skew", "negative"]]),
    max_rows=st.integers(1, 40),
)
def test_a_call_is_cut_anywhere(seeds, views, max_rows):
    """Into as few parts as the bound allows, none of which changes the image."""
    backend = Counting(mixture())
    stack = [Anagram({view: k for k, view in enumerate(views)}), CFG(2.0)]
    bounded = Sampler(backend, stack, num_inference_steps=1, max_rows=max_rows)
    x, rows = bounded.sample(seeds=range(seeds)).x, 2 * len(views) * seeds
    parts, rest = divmod(rows, max_rows)
    assert backend.rows == [max_rows] * parts + [rest] * (rest > 0)
    free = Sampler(mixture(), stack, num_inference_steps=1)
    torch.testing.assert_close(x, free.sample(seeds=range(seeds)).x, rtol=1e-9, atol=1e-9)


def test_the_rows_of_a_call():
    """Request by request; rows about one image have one number."""
    x, y = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    low = torch.randn(2, 1, 4, 4)
    beside = {"low": low, "level": torch.tensor([7.0])}
    asked = [
        Request(x, 0.1, 5, beside=beside),
        Request(y, 0.1, Each([5, 6]), beside=beside, model="weak"),
        Request(x, 0.2, UNCONDITIONAL, beside=beside, origin=(1, 0)),
    ]
    batch = batch_of(asked)
    assert torch.equal(batch.x, torch.cat([x, y, x]))
    assert batch.times == (0.1,) * 4 + (0.2,) * 2
    assert batch.conditions == (5, 5, 5, 6, UNCONDITIONAL, UNCONDITIONAL)
    assert batch.images == (0, 1, 2, 3, 0, 1)
    assert batch.models == (None, None, "weak", "weak", None, None)
    assert torch.equal(batch.beside["low"], torch.cat([low] * 3))
    assert batch.beside["level"].tolist() == [7.0] * 6
    with pytest.raises(
        ValueError, match="beside must have the same names in all requests of a round, got"
    ):
        batch_of([*asked, Request(x, 0.1, 5)])


rows_of_five = st.permutations(range(5)).flatmap(
    lambda rows: st.lists(st.integers(0, 2), min_size=5, max_size=5).map(
        lambda keys: [[r for r, k in zip(rows, keys, strict=True) if k == c] for c in {*keys}]
    )
)


@given(groups=rows_of_five, variance=st.booleans())
def test_groups_of_rows_are_put_back_in_order(groups, variance):
    x = torch.arange(5.0)[:, None, None, None]
    batch = Batch(x, (0.1, 0.2, 0.3, 0.4, 0.5), tuple("abcde"), (0, 1, 0, 1, 2), (None,) * 5)
    outputs = []
    for rows in groups:
        part = batch.take(rows)
        assert part.x.flatten().tolist() == [float(row) for row in rows]
        assert part.times == tuple(batch.times[row] for row in rows)
        outputs.append(Output(part.x, -part.x if variance else None))
    output = Output.gathered(outputs, groups)
    assert torch.equal(output.prediction, x)
    assert output.variance is None or torch.equal(output.variance, -x)


def test_rows_by_key():
    assert grouped("abca") == [[0, 3], [1], [2]]


def test_a_request_about_some_of_its_images():
    """Each image keeps what lies beside it, its condition and its scale."""
    x = torch.randn(3, 1, 4, 4)
    request = Request(x, 0.5, Each([7, 8]), origin=(0, 1, 1), beside={"low": x})
    assert request.conditions == (7, 8, 8)
    some = request.rows(torch.tensor([2, 0]))
    assert torch.equal(some.x, x[[2, 0]])
    assert torch.equal(some.beside["low"], x[[2, 0]])
    assert some.conditions == (8, 7)
    assert some.each([1.0, 2.0]).flatten().tolist() == [2.0, 1.0]
    assert some.each(3.0) == 3.0
    assert request.seen_through(get_transform("flip")).conditions == (7, 8, 8)
    with pytest.raises(ValueError, match="must be one for all seeds, or one per seed, got 2"):
        Request(x, 0.5).each([1.0, 2.0])


def test_the_recipe_and_the_result_keep_one_condition_a_seed():
    backend = composer.load_backend("mnist")
    stack = [CFG(torch.tensor([1.0, 2.0, 3.0]))]
    result = Sampler(backend, stack, num_inference_steps=2).sample([3, UNCONDITIONAL, 5], SEEDS)
    assert result.condition == Each([3, UNCONDITIONAL, 5])
    assert result[1:].condition == Each([UNCONDITIONAL, 5])
    call = composer.call_of(result.recipe)
    again = Sampler.from_recipe(result.recipe).sample(**call)
    assert torch.equal(again.x, result.x)
    views = Anagram({"identity": Each([6, 1]), "flip": Each([9, 2])})
    result = Sampler(backend, [views], num_inference_steps=1).sample(seeds=[0, 1])
    again = Sampler.from_recipe(result.recipe).sample(**composer.call_of(result.recipe))
    assert torch.equal(again.x, result.x)


@pytest.mark.parametrize(
    ("stack", "sentence"),
    [
        ([CFG([1.0, 2.0])], "CFG: scale must be one number, or one per seed, 3 in all"),
        ([Autoguidance([1.0] * 4)], "Autoguidance: scale must be one number, or one per seed"),
        ([Hybrid(Each([1, 2]), 3)], "Hybrid: a condition must be one for all, or one per seed, "),
        ([Conjunction({Each([1, 2]): 2.0})], "Conjunction: a condition must be one for all, or"),
    ],
)
def test_as_many_values_as_seeds(stack, sentence):
    backend = Counting(mixture())
    weak = isinstance(stack[0], Autoguidance)
    sampler = Sampler(WithWeak(mixture(), mixture()) if weak else backend, stack)
    with pytest.raises(ValueError, match=sentence):
        sampler.sample(seeds=SEEDS)
    assert backend.rows == []


@pytest.mark.parametrize(
    ("scale", "error"),
    [([], ValueError), ([1.0, math.nan], ValueError), (["a"], TypeError), (torch.ones(2, 2), None)],
)
def test_scales_are_numbers(scale, error):
    with pytest.raises(error or (TypeError, ValueError), match="CFG: scale must be"):
        CFG(scale)


def test_over_the_identity_each_scale_obeys_the_law():
    backend = IdentityBackend((1, 4, 4))
    x = Sampler(backend, [CFG([0.0, 7.0, -2.0])], num_inference_steps=3).sample([1, 2, 3], SEEDS).x
    plain = Sampler(backend, num_inference_steps=3).sample(1, SEEDS).x
    torch.testing.assert_close(x, plain, rtol=1e-12, atol=1e-12)
