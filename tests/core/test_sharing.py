"""A question is answered once, wherever in the tree of plugins it is asked."""

import gc
import weakref

import pytest
import torch
from conftest import mixture
from hypothesis import given, reject
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Request, Sampler, get_transform, hookimpl
from composer.driver import resolve
from composer.model import Model
from composer.stats import Stats
from composer_plugins import APG, CFG, Anagram, Autoguidance, Conjunction, Hybrid, Rescale

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
FLIP = get_transform("flip")


class Opened:
    """A plugin that counts the conversations it holds."""

    def __init__(self, plugin):
        self.plugin, self.count = plugin, 0

    @hookimpl
    def noise_estimate(self, request):
        self.count += 1
        return (yield from self.plugin.noise_estimate(request))


def naive(request, plugins, model):
    """The definition: each request answered on its own, by a tree of its own."""
    if request.through:
        inner = [plugin.noise_estimate for plugin in request.through]
        return naive(request.replace(through=()), [*inner, *plugins], model)
    if not plugins:
        return model([request])[0]
    asking = plugins[0](request)
    try:
        asked = next(asking)
        while True:
            asked = asking.send([naive(r, plugins[1:], model) for r in asked])
    except StopIteration as stop:
        return stop.value


def estimates(plugins, condition):
    """By the driver and by the definition, and the rows that each asked the model for."""
    functions = [plugin.noise_estimate for plugin in plugins]
    for way in (resolve, naive):
        backend = mixture()
        model = Model(backend, None, Stats())
        request = Request(X, 0.4, condition, step=3, schedule=backend.schedule)
        yield way(request, functions, model).prediction, model.stats


def nested(conditions):
    """Plugins that decide conditions, or stand in place of one."""
    pair = st.tuples(conditions, conditions)
    return st.one_of(
        pair.map(lambda c: Hybrid(*c)),
        pair.map(lambda c: Anagram({"identity": c[0], "flip": c[1]})),
        pair.map(lambda c: Anagram({"rotate_cw": c[0], "negative": c[1]}, rectification=0.5)),
        pair.map(lambda c: Conjunction({c[0]: 2.0, c[1]: -0.5} if c[0] != c[1] else {c[0]: 3.0})),
    )


SCALES = st.sampled_from([-1.0, 0.0, 1.0, 2.5])
GUIDANCE = st.one_of(
    SCALES.map(CFG),
    st.builds(CFG, SCALES, negative=st.integers(0, 3)),
    SCALES.map(lambda scale: Rescale(CFG(scale))),
    SCALES.map(lambda scale: APG(CFG(scale))),
)
DECIDING = st.recursive(st.integers(0, 3), nested, max_leaves=5).filter(
    lambda made: not isinstance(made, int)
)


@given(st.lists(GUIDANCE, max_size=3), st.lists(DECIDING, max_size=1), st.data())
def test_sharing_changes_no_estimate(guidance, deciding, data):
    """Guidance of several kinds, in any order with views, bands and plugins for conditions."""
    plugins = data.draw(st.permutations([*guidance, *deciding]))
    condition = None if deciding else data.draw(st.sampled_from([None, UNCONDITIONAL, 1]))
    try:
        (shared, stats), (alone, naive_stats) = estimates(plugins, condition)
    except ValueError as error:  # kinds of estimates that do not combine
        if "same kind" not in str(error):
            raise
        reject()
    torch.testing.assert_close(shared, alone)
    assert stats.evaluated <= stats.requested <= naive_stats.requested


@given(st.integers(1, 24), st.lists(SCALES, min_size=24, max_size=24))
def test_guidance_in_guidance_costs_in_proportion(count, scales):
    """k plugins that ask twice hold 2 conversations each, and need the two rows of one."""
    plugins = [Opened(CFG(scale)) for scale in scales[:count]]
    stats = Sampler(mixture(), plugins, num_inference_steps=1).sample(1).stats
    assert stats.requested <= 2
    assert all(plugin.count <= 2 for plugin in plugins)


def test_guidance_in_guidance_is_guidance_of_the_product():
    scales = [1.1, 0.7, 2.0, 1.3]
    product = CFG(1.1 * 0.7 * 2.0 * 1.3)
    for condition in (1, None):
        many, one = (
            Sampler(mixture(), plugins).sample(condition).x
            for plugins in ([CFG(scale) for scale in scales], [product])
        )
        torch.testing.assert_close(many, one)


@pytest.mark.parametrize("depth", [1, 4, 12])
def test_an_anagram_nested_in_both_its_views_asks_about_each_image_once(depth):
    """At depth k the image was flipped up to k times, each another tensor."""
    condition, plugins = 1, []
    for _ in range(depth):
        condition = Opened(Anagram({"identity": condition, "flip": condition}))
        plugins.append(condition)
    sampler = Sampler(mixture(), plugins[-1:], num_inference_steps=1)
    stats = sampler.sample().stats
    assert (stats.evaluated, stats.calls) == (depth + 1, 1)
    assert [plugin.count for plugin in plugins] == [*range(depth, 0, -1)]


def test_anagrams_in_a_list_share_their_views():
    """Views of one plugin in those of another: as many images as there are products of views."""
    plugins = [Opened(Anagram({"identity": None, "flip": None})) for _ in range(8)]
    stats = Sampler(mixture(), [*plugins, CFG(2.0)], num_inference_steps=1).sample(1).stats
    assert stats.evaluated == 2 * 9
    assert [plugin.count for plugin in plugins] == [*range(1, 9)]


def test_what_differs_in_anything_is_not_shared():
    """Each of the fields of a request makes another question."""
    backend, made = mixture(), []

    def model(requests):
        made.extend(requests)
        return [r.answer(r.x, None, backend.prediction) for r in requests]

    def inner(request):
        return (yield [request])[0].replace(t=request.t)

    def asks(request):
        other = Request(X, 0.4, 1, step=1, schedule=backend.schedule)
        variants = [
            request,
            request.replace(x=request.x.clone()),
            request.replace(t=0.5),
            request.replace(condition=2),
            request.replace(condition=True),  # equal to 1, and something else to a backend
            request.replace(model="weak"),
            request.replace(through=(CFG(0.0),)),  # which asks about no condition
            request.seen_through(FLIP),
            Request(X, 0.4, 1, step=2, schedule=backend.schedule),
            Request(X, 0.4, 1, step=1, beside={"low": X}, schedule=backend.schedule),
            other,
        ]
        same = [
            request.replace(),
            request.replace(condition=1),
            request.seen_through(FLIP),
            other,
        ]
        answers = yield [*variants, *same]
        assert len({id(a) for a in answers}) == len(variants)
        return answers[0]

    request = Request(X, 0.4, 1, step=1, schedule=backend.schedule)
    resolve(request, [asks, inner], model)
    assert len(made) == 11


def test_a_plugin_that_asks_itself_is_an_error():
    class Asks:
        @hookimpl
        def noise_estimate(self, request):
            return (yield [request.replace(through=(self,))])[0]

    with pytest.raises(ValueError, match="waits for its own answer"):
        Sampler(mixture(), [Asks()]).sample(1)


def test_a_conversation_of_several_rounds_is_shared_while_it_lasts():
    """Who asks while it is under way, or after its end, gets the same answer at no row."""
    late = []

    class Slow:
        @hookimpl
        def noise_estimate(self, request):
            for k in range(3):
                (estimate,) = yield [request.replace(x=request.x + k)]
            return estimate.replace(x=request.x)

    class Waits:
        """Asks the same as the other branch, a number of rounds later."""

        def __init__(self, rounds):
            self.rounds = rounds

        @hookimpl
        def noise_estimate(self, request):
            for k in range(self.rounds):
                yield [request.replace(x=request.x - 1 - k)]
            (estimate,) = yield [request]
            late.append(estimate)
            return estimate

    class Fork:
        @hookimpl
        def noise_estimate(self, request):
            answers = yield [request.replace(through=(Waits(k),)) for k in range(6)]
            return sum(answers) / len(answers)

    backend = mixture()
    stats = Sampler(backend, [Fork(), Slow()], num_inference_steps=1).sample(1).stats
    assert len({id(estimate) for estimate in late}) == 1
    assert stats.evaluated == 3 + 3 * (1 + 2 + 3 + 4 + 5)  # of x, and of each image before it
    assert stats.calls == 3 * 5  # the last branch finds its answer there


def test_autoguidance_and_guidance_share_what_both_ask():
    plugins = [Opened(Autoguidance(1.5)), Opened(CFG(2.0)), Opened(Autoguidance(0.5))]
    model = Model(mixture(), None, Stats())
    asked = []

    def answer(requests):
        asked.extend((r.model, r.condition) for r in requests)
        return model([r.replace(model=None) for r in requests])

    request = Request(X, 0.4, 1, schedule=model.backend.schedule)
    resolve(request, [plugin.noise_estimate for plugin in plugins], answer)
    assert len(asked) == len(set(asked)) == 4


def test_a_step_leaves_no_tensors_to_the_collector_of_cycles():
    """They may be large; only what the loop needs is held: the last estimate, for the solver."""
    predictions = []

    class Remembering(Anagram):
        @hookimpl
        def noise_estimate(self, request):
            asking = super().noise_estimate(request)
            answers = yield next(asking)
            predictions.extend(weakref.ref(answer.prediction) for answer in answers)
            try:
                asking.send(answers)
            except StopIteration as stop:
                return stop.value

    stack = [Remembering({"identity": 0, "flip": Hybrid(1, 2)}), CFG(2.0)]
    gc.collect()
    gc.disable()
    try:
        for step, _ in enumerate(Sampler(mixture(), stack, num_inference_steps=4).stream()):
            alive = [k for k, prediction in enumerate(predictions) if prediction() is not None]
            assert alive == [], step
    finally:
        gc.enable()
    assert len(predictions) == 2 * 4


class Asks:
    """Asks for some conditions, notes when it continues, and returns their mean."""

    def __init__(self, order, *conditions):
        self.order, self.conditions = order, conditions

    @hookimpl
    def noise_estimate(self, request):
        found = yield [request.replace(condition=c) for c in self.conditions]
        self.order.append(self.conditions)
        return sum(found) / len(found)


def test_conversations_continue_in_the_order_in_which_their_last_question_was_asked():
    """So a plugin that draws noise draws the same, whatever else shares its questions."""

    class Fork:
        @hookimpl
        def noise_estimate(self, request):
            a, b, c = yield [request.fill(Asks(order, *asked)) for asked in ((0,), (1,), (0, 2))]
            return (a + b + c) / 3

    order = []
    Sampler(mixture(), [Fork()], num_inference_steps=1).sample()
    assert order == [(0,), (1,), (0, 2)]


def test_who_asks_the_same_twice_continues_once():
    order = []
    stats = Sampler(mixture(), [Asks(order, 1, 1)], num_inference_steps=2).sample().stats
    assert order == [(1, 1)] * 2
    assert stats.evaluated == 2
