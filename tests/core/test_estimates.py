"""Estimates: about one image if their x is one tensor, and what becomes of learned variances."""

import copy
import re
from pathlib import Path

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Request, Sampler, get_transform, hookimpl
from composer.driver import resolve
from composer.model import Model
from composer.requests import combine
from composer.stats import Stats
from composer_plugins import CFG, Anagram, Conjunction, Hybrid

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
VIEWS = [get_transform(name) for name in ("identity", "flip", "rotate_cw", "negative", "skew")]


def request_at(backend, condition=None):
    return Request(X, 0.3, condition, schedule=backend.schedule)


@given(st.lists(st.sampled_from(VIEWS), max_size=5))
def test_what_is_carried_back_is_about_the_very_image(views):
    """Through views of views; where nothing was looked at, to rounding."""
    backend = mixture()
    request = seen = request_at(backend, 1)
    for view in views:
        seen = seen.seen_through(view)
    (back,) = Model(backend, None, Stats())([seen])
    for view in reversed(views):
        back = back.seen_back(view)
    assert back.x is X
    assert (back + request.answer(X, None, back.kind)).x is X
    request.forget_views()
    x = seen.answer(seen.x, None, back.kind)
    for view in reversed(views):
        x = x.seen_back(view)
    torch.testing.assert_close(x.x, X)


def test_the_table_of_a_copy_knows_no_other_tensor_by_its_place_in_memory():
    request = request_at(mixture(), 1)
    flip = get_transform("flip")
    seen = request.seen_through(flip)
    copied = copy.deepcopy(seen)
    assert copied.x is not seen.x
    for tensor in (X, seen.x, copied.x):
        torch.testing.assert_close(copied.replace(x=tensor).seen_through(flip).x, flip(tensor))


def test_equal_images_are_one_if_the_plugin_says_so():
    def clones(request):
        a, b = yield [request, request.replace(x=request.x.clone())]
        with pytest.raises(ValueError, match=r"two different images.*replace\(x=request\.x\)"):
            a + b
        with pytest.raises(ValueError, match="two different images"):
            combine((0.5, 0.5), (a, b))
        return (a + b.replace(x=request.x)) / 2

    backend = mixture()
    estimate = resolve(request_at(backend, 1), [clones], Model(backend, None, Stats()))
    assert torch.equal(estimate.prediction, Sampler(backend).denoise(X, 0.3, 1).prediction)


def test_a_stand_in_for_a_model_answers_by_the_request():
    backend = mixture()
    answer = request_at(backend, 1).answer(2 * X, X, backend.prediction)
    assert (answer.x, answer.t, answer.schedule) == (X, 0.3, backend.schedule)
    assert torch.equal(answer.prediction, 2 * X)
    assert answer.variance is X
    with pytest.raises(ValueError, match="no schedule. Pass schedule=backend.schedule"):
        Request(X, 0.3).answer(X, None, backend.prediction)


def answers(variances):
    """Estimates of one image, with these variances."""
    backend = mixture()
    request = request_at(backend)
    return [request.answer(X * k, v, backend.prediction) for k, v in enumerate(variances)]


def random_sum(terms, rng):
    """The terms in any order and any brackets, any of them subtracted, all multiplied."""
    terms = list(terms)
    rng.shuffle(terms)
    while len(terms) > 1:
        place = rng.randrange(len(terms) - 1)
        one, other = terms[place : place + 2]
        terms[place : place + 2] = [rng.choice([one + other, one - other, (2 * one + other) / 3])]
    return rng.choice([1, -1, 0.5]) * terms[0]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_variance_of_a_sum_is_the_mean_of_its_terms_each_once(labels, rng):
    """Whatever the order, the brackets and the factors, ``combine`` as well."""
    known = {k: torch.full_like(X, float(k) ** 2) for k in range(4)}
    terms = answers([None if label is None else known[label] for label in labels])
    present = {label for label in labels if label is not None}
    for summed in (random_sum(terms, rng), combine([0.5] * len(terms), terms)):
        if not present:
            assert summed.variance is None
            continue
        expected = sum(label**2 for label in present) / len(present)
        torch.testing.assert_close(summed.variance, torch.full_like(X, expected))


def test_the_variance_can_be_said():
    a, b, c = answers([X, 2 * X, 4 * X])
    assert (a + b).replace(variance=c.variance).variance is c.variance
    torch.testing.assert_close(((a + b).replace(variance=X) + c).variance, 2.5 * X)
    assert combine((0.5, 0.5), (a, b), variance=c).variance is c.variance
    assert (a + b).replace(variance=None).variance is None
    torch.testing.assert_close((a + b).replace(prediction=X).variance, 1.5 * X)


LEVELS = {UNCONDITIONAL: 9.0, 1: 1.0, 2: 4.0, 3: 2.0}


class Learned:
    """A mixture whose learned variance is x^2 plus a number for each condition."""

    def __init__(self):
        self.inner = mixture()

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def evaluate(self, batch):
        levels = torch.tensor([LEVELS[condition] for condition in batch.conditions])
        variance = batch.x.square() + levels.to(batch.x)[:, None, None, None]
        return self.inner.evaluate(batch)._replace(variance=variance)


def documented(name):
    """A class of docs/write-a-plugin.md."""
    page = (Path(__file__).parents[2] / "docs/write-a-plugin.md").read_text()
    code = next(code for code in re.findall(r"```python\n(.*?)```", page, re.S) if name in code)
    source = re.search(rf"@dataclass[^\n]*\nclass {name}.*?(?=\n\n\n|\n\n[a-z]|\Z)", code, re.S)[0]
    space = {"get_transform": get_transform, "hookimpl": hookimpl}
    exec("from dataclasses import dataclass\nfrom composer import UNCONDITIONAL\n" + source, space)
    return space[name]


@pytest.mark.parametrize("place", ["alone", "around guidance", "in guidance"])
def test_the_documented_anagram_has_the_variance_of_the_built_in_one(place):
    ours, builtin = (
        Sampler(
            Learned(),
            {"alone": [p], "around guidance": [p, CFG(3.0)], "in guidance": [CFG(3.0), p]}[place],
        ).denoise(X, 0.3)
        for p in (documented("BothWays")(1, 2), Anagram({"identity": 1, "rotate_180": 2}))
    )
    torch.testing.assert_close(ours.prediction, builtin.prediction)
    torch.testing.assert_close(ours.variance, builtin.variance)


def test_what_a_plugin_answers_is_one_term_of_the_next():
    """A hybrid of an anagram and a condition: half of the mean, half of the other."""

    class Half:
        @hookimpl
        def noise_estimate(self, request):
            a, b = yield [request.fill(1), request.fill(2)]
            return (a + b) / 2

    class Around:
        @hookimpl
        def noise_estimate(self, request):
            a, b = yield [request.fill(Half()), request.fill(3)]
            return (a + b) / 2

    levels = {k: Sampler(Learned()).denoise(X, 0.3, k).variance for k in (1, 2, 3)}
    expected = ((levels[1] + levels[2]) / 2 + levels[3]) / 2
    variance = Sampler(Learned(), [Around()]).denoise(X, 0.3).variance
    torch.testing.assert_close(variance, expected)


@pytest.mark.parametrize(
    "plugin", [CFG(3.0), CFG(-2.0), Conjunction({1: 3.0, 2: -1.0}), Hybrid(1, 2)]
)
def test_built_in_sums_stay_within_the_variances_of_their_rows(plugin):
    condition = 1 if isinstance(plugin, CFG) else None
    variance = Sampler(Learned(), [plugin]).denoise(X, 0.3, condition).variance
    levels = variance - X.square()
    assert bool(((levels > 1 - 1e-9) & (levels < 4 + 1e-9)).all())


DTYPES = st.sampled_from([torch.float32, torch.float64])


@given(
    st.floats(-20, 20) | st.lists(st.floats(-20, 20), min_size=2, max_size=2),
    DTYPES,
    DTYPES,
    st.booleans(),
)
def test_lerp_is_the_line_through_two_estimates_with_the_variance_of_the_first(
    weight, dtype, end, sums
):
    kind = mixture().prediction
    one, other = (request_at(mixture()).answer(image, image / 9, kind) for image in (X, X.flip(-1)))
    one, other = (
        estimate.replace(prediction=estimate.prediction.to(wanted))
        for estimate, wanted in ((one, dtype), (other, end))
    )
    one = one + one.replace(variance=X / 7) if sums else one
    each = weight if isinstance(weight, float) else torch.tensor(weight)[:, None, None, None]
    found = one.lerp(other, each)
    exact = one.prediction + each * (other.prediction - one.prediction)
    assert found.prediction.dtype == exact.dtype
    narrow = torch.float32 in (dtype, end, getattr(each, "dtype", None))
    torch.testing.assert_close(found.prediction, exact, rtol=0, atol=1e-4 if narrow else 1e-12)
    torch.testing.assert_close(found.variance, one.variance)
    again = found + other.replace(variance=X / 3)  # the variance is one term of a further sum
    torch.testing.assert_close(again.variance, (one.variance + X / 3) / 2)


def test_lerp_asks_for_two_estimates_of_one_image():
    one = request_at(mixture()).answer(X, None, mixture().prediction)
    with pytest.raises(ValueError, match="must have the same x"):
        one.lerp(one.replace(x=X.clone()), 0.5)
    with pytest.raises(TypeError, match="must be a number or a tensor, got '2'"):
        one.lerp(one, "2")
    with pytest.raises(TypeError, match="can be combined with an Estimate, got float"):
        one.lerp(0.5, one)
