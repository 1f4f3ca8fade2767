"""NaN is found at the end of a run, with its step; when debugging at once, with the plugin."""

import math

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler, hookimpl
from composer.errors import NonFiniteError
from composer.finiteness import Finiteness
from composer.protocols import Output
from composer.solvers import DDPM, Heun
from composer_plugins import APG, CFG, Anagram, Hybrid, Inpaint, Particles, Rescale, SDEdit

IMAGE, MASK = torch.zeros(1, 8, 8), torch.eye(8)
STEPS = 5


class Counting:
    """A mixture that counts its calls, and whose output at one of them is spoilt."""

    def __init__(self, call=None, bad=math.nan, variance=False):
        self.inner, self.call, self.bad, self.variance = mixture(), call, bad, variance
        self.calls = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def evaluate(self, batch):
        self.calls += 1
        prediction = self.inner.evaluate(batch).prediction
        output = Output(prediction, torch.zeros_like(prediction) if self.variance else None)
        if self.calls == self.call:
            spoilt = output.variance if self.variance else output.prediction
            spoilt[-1, 0, 0, 0] = self.bad
        return output


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("call", [1, 3, STEPS])
def test_what_the_model_spoils_is_named_with_its_step(call, variance, bad):
    backend = Counting(call, bad, variance)
    sampler = Sampler(backend, [CFG(2.0)], num_inference_steps=STEPS)
    sentence = rf"the model returned NaN or Inf at step {call - 1} .*the condition UNCONDITIONAL"
    with pytest.raises(NonFiniteError, match=sentence):
        sampler.sample(1)
    assert backend.calls == STEPS  # no step waited to see it


@pytest.mark.parametrize("call", [1, 3, STEPS])
def test_debug_stops_at_once(call):
    backend = Counting(call)
    sampler = Sampler(backend, [CFG(2.0)], num_inference_steps=STEPS, debug=True)
    with pytest.raises(NonFiniteError, match=f"the model returned NaN or Inf at step {call - 1} "):
        sampler.sample(1)
    assert backend.calls == call


def test_a_stream_raises_instead_of_its_last_state():
    states = Sampler(Counting(3), num_inference_steps=STEPS).stream(1)
    assert [next(states).step for _ in range(STEPS - 1)] == [0, 1, 2, 3]
    with pytest.raises(NonFiniteError, match="at step 2 "):
        next(states)


def test_denoise_raises_too():
    with pytest.raises(NonFiniteError, match="the model returned NaN"):
        Sampler(Counting(1)).denoise(torch.zeros(1, 1, 8, 8), 0.5)


def test_an_error_that_comes_of_it_does_not_hide_it():
    """A score of images that are NaN raises before the run ends."""
    plugins = [Particles(lambda x: x.flatten(1).sum(1), ((1, 4), (0.5, 2), (0, 1)))]
    with pytest.raises(NonFiniteError, match="the model returned NaN or Inf at step 0") as raised:
        Sampler(Counting(1), plugins, num_inference_steps=STEPS).sample(1)
    assert "score must return finite numbers" in str(raised.value.__context__)


class Spoils:
    """Sets x to NaN in one hook, at one step."""

    def __init__(self, hook, step=2):
        self.hook, self.step_number = hook, step

    def _spoil(self, hook, state, x):
        return x * math.nan if (hook, state.step) == (self.hook, self.step_number) else x

    @hookimpl
    def start(self, state):
        state.x = self._spoil("start", state, state.x)

    @hookimpl
    def noise_estimate(self, request):
        (estimate,) = yield [request]
        return estimate.replace(prediction=self._spoil("noise_estimate", request, request.x))

    @hookimpl
    def step(self, state, estimate):
        return self._spoil("step", state, estimate.x) if self.hook == "step" else None

    @hookimpl
    def post_step(self, state):
        state.x = self._spoil("post_step", state, state.x)

    @hookimpl
    def finish(self, state):
        state.x = self._spoil("finish", state, state.x)


class SpoilsLate(Spoils):
    """Takes a step with a further evaluation."""

    @hookimpl
    def step(self, state, estimate):
        (further,) = yield [state.request(estimate.x, estimate.t)]
        return self._spoil("step", state, further.x)


class SpoilsAround(Spoils):
    """Goes on after all others have started."""

    @hookimpl(wrapper=True)
    def start(self, state):
        yield
        state.x = self._spoil("start", state, state.x)


class Innocent:
    """A plugin that leaves all as it is."""

    @hookimpl
    def start(self, state): ...

    @hookimpl
    def noise_estimate(self, request):
        return (yield [request])[0]

    @hookimpl
    def post_step(self): ...

    @hookimpl
    def finish(self, state): ...


CULPRITS = [
    *((Spoils, hook) for hook in ("start", "noise_estimate", "step", "post_step", "finish")),
    (SpoilsLate, "step"),
    (SpoilsAround, "start"),
]


@pytest.mark.parametrize(("kind", "hook"), CULPRITS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_names_plugin_hook_and_step(kind, hook, place):
    step = {"start": 0, "finish": STEPS - 1}.get(hook, 2)
    plugins = [Innocent(), Innocent()]
    plugins.insert(place, kind(hook, step))
    sentence = (
        rf"{kind.__name__}\.{hook} .*at step {step}|in {kind.__name__}\.{hook} at step {step}"
    )
    with pytest.raises(NonFiniteError, match=sentence):
        Sampler(mixture(), plugins, num_inference_steps=STEPS, debug=True).sample(1)
    with pytest.raises(NonFiniteError, match=rf"at step {step} "):
        Sampler(mixture(), plugins, num_inference_steps=STEPS).sample(1)


@pytest.mark.parametrize("solver", [None, DDPM(), Heun()])
@pytest.mark.parametrize(
    "plugins",
    [
        [Anagram({"identity": Hybrid(0, 1), "flip": 2}), CFG(2.0)],
        [SDEdit(IMAGE), Inpaint(IMAGE, MASK), CFG(2.0)],
        [Particles(lambda x: x.flatten(1).sum(1), ((1, 3), (0.5, 2), (0, 1)))],
    ],
)
def test_debug_changes_no_image(plugins, solver):
    x, seen = (
        Sampler(mixture(), plugins, solver, STEPS, debug=debug).sample(seeds=[0, 1]).x
        for debug in (False, True)
    )
    assert torch.equal(x, seen)


class Writes:
    """Writes into what it is given, unless that is the probe of a Sampler that is built."""

    def __init__(self, write):
        self.write = write

    @hookimpl
    def noise_estimate(self, request):
        cond, other = yield [request, request.replace(condition=2)]
        if cond.variance is not None:
            self.write(request, cond)
        return (cond + other) / 2


WRITING = {
    "request.x": lambda request, answer: request.x.mul_(0.5),
    "the prediction of an answer": lambda request, answer: answer.prediction.mul_(0.5),
    "the variance of an answer": lambda request, answer: answer.variance.add_(0.5),
    "the noise of an answer": lambda request, answer: answer.noise.mul_(0.5),
    "the x0 of an answer": lambda request, answer: answer.x0.clamp_(-0.1, 0.1),
}


@pytest.mark.parametrize("what", WRITING)
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("around", [Rescale, APG, None])
def test_a_plugin_that_writes_into_what_others_hold_is_named(what, debug, around):
    """Rescale and APG share their conditional row with what they guide."""
    writes = Writes(WRITING[what])
    plugins = [around(writes)] if around else [Innocent(), writes, Innocent()]
    with pytest.raises(ValueError, match=rf"Writes.noise_estimate wrote into {what}. Work on a c"):
        Sampler(Counting(variance=True), plugins, num_inference_steps=2, debug=debug).sample(1)


class WritesIn:
    def __init__(self, hook):
        self.hook = hook

    @hookimpl
    def start(self, state):
        if self.hook == "start":
            state.x.mul_(0.5)

    @hookimpl
    def step(self, state, estimate):
        return estimate.prediction.mul_(0.5) if self.hook == "step" else None

    @hookimpl
    def post_step(self, state):
        if self.hook == "post_step":
            state.x.mul_(0.5)

    @hookimpl
    def finish(self, state):
        if self.hook == "finish":
            state.x.clamp_(-1, 1)


@pytest.mark.parametrize("hook", ["start", "step", "post_step", "finish"])
def test_debug_names_a_hook_that_writes_into_the_image(hook):
    plugins = [Innocent(), WritesIn(hook), Innocent()]
    what = "estimate.prediction" if hook == "step" else "state.x"
    with pytest.raises(ValueError, match=rf"WritesIn\.{hook} wrote into {what}. Replace it"):
        Sampler(mixture(), plugins, num_inference_steps=2, debug=True).sample(1)


class WritesTo(WritesIn):
    """Writes into one tensor of an estimate, or into x, in one hook."""

    def __init__(self, hook, write):
        self.hook, self.write = hook, write

    @hookimpl
    def start(self, state): ...

    @hookimpl
    def finish(self, state): ...

    @hookimpl
    def step(self, state, estimate):
        if self.hook == "step":
            self.write(estimate)

    @hookimpl
    def post_step(self, state):
        if self.hook == "post_step":
            self.write(state.estimate)


class WritesLater:
    """Writes in a step that is a generator, before or after its own request."""

    def __init__(self, write, late):
        self.write, self.late = write, late

    @hookimpl
    def step(self, state, estimate):
        if not self.late:
            self.write(estimate)
        (answer,) = yield [state.request(state.x * 1, state.t)]
        if self.late:
            self.write(estimate)
        return estimate.x0 + answer.noise


class WritesAround:
    """Wrapper hooks that write before or after those of the others."""

    def __init__(self, hook, write, late):
        self.hook, self.write, self.late = hook, write, late

    def _around(self, hook, *arguments):
        if hook == self.hook and not self.late:
            self.write(*arguments)
        result = yield
        if hook == self.hook and self.late:
            self.write(*arguments)
        return result

    @hookimpl(wrapper=True)
    def start(self, state):
        return (yield from self._around("start", state))

    @hookimpl(wrapper=True)
    def step(self, state, estimate):
        return (yield from self._around("step", estimate))

    @hookimpl(wrapper=True)
    def post_step(self, state):
        return (yield from self._around("post_step", state))

    @hookimpl(wrapper=True)
    def finish(self, state):
        return (yield from self._around("finish", state))


class Replaces:
    """Replaces x in each hook, so that a wrapper meets another x after its yield."""

    @hookimpl
    def start(self, state):
        state.x = state.x * 1

    @hookimpl
    def post_step(self, state):
        state.x = state.x * 1

    @hookimpl
    def finish(self, state):
        state.x = state.x * 1


ESTIMATE = {
    name: lambda estimate, name=name: getattr(estimate, name).mul_(0.5)
    for name in ("prediction", "variance", "noise", "x0")
}


def fails(plugin, sentence):
    plugins = [Innocent(), plugin, Replaces()]
    with pytest.raises(ValueError, match=sentence):
        Sampler(Counting(variance=True), plugins, num_inference_steps=2, debug=True).sample(1)


@pytest.mark.parametrize("name", ESTIMATE)
def test_debug_names_a_hook_that_writes_into_an_estimate(name):
    write, end = ESTIMATE[name], rf"estimate\.{name}\. Replace it"
    fails(WritesTo("step", write), rf"^WritesTo\.step wrote into {end}")
    fails(WritesTo("post_step", write), rf"^WritesTo\.post_step wrote into state\.{end}")
    for late in (False, True):
        fails(WritesLater(write, late), rf"^WritesLater\.step wrote into {end}")
        fails(WritesAround("step", write, late), rf"^WritesAround\.step wrote into {end}")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("hook", ["start", "post_step", "finish"])
def test_debug_names_a_wrapper_that_writes_into_the_image(hook, late):
    plugin = WritesAround(hook, lambda state: state.x.mul_(2), late)
    fails(plugin, rf"^WritesAround\.{hook} wrote into state\.x\. Replace it")


def test_debug_lets_a_wrapper_see_the_error_of_an_inner_hook():
    class Raises:
        @hookimpl
        def post_step(self, state):
            raise LookupError("inner")

    class Catches:
        @hookimpl(wrapper=True)
        def post_step(self, state):
            try:
                return (yield)
            except LookupError as error:
                self.caught = error

    plugin = Catches()
    Sampler(mixture(), [plugin, Raises()], num_inference_steps=2, debug=True).sample(1)
    assert str(plugin.caught) == "inner"


NUMBERS = st.floats(-60000, 60000)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=4), min_size=1, max_size=6), st.data())
def test_the_first_of_what_is_noted_is_named(rows, data):
    """The same as to look at each number; of float16 too, whose sum would overflow. Each row is a
    batch of images, of two equal halves of one number."""
    dtype = data.draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    tensors = [torch.tensor(row, dtype=dtype) for row in rows]
    if data.draw(st.booleans()):
        spoilt = data.draw(st.sampled_from(tensors))
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(
            st.sampled_from([math.nan, math.inf, -math.inf])
        )
    expected = [
        f"batch {k}, image {i}"
        for k, tensor in enumerate(tensors)
        for i, number in enumerate(tensor.tolist())
        if not math.isfinite(number)
    ]
    finiteness = Finiteness()
    for k, tensor in enumerate(tensors):
        images = tensor[:, None, None, None].expand(-1, 1, 2, 1)
        finiteness.add(images, f"batch {k}, image {{}}".format)
    if expected:
        with pytest.raises(NonFiniteError, match=f"^{expected[0]}$"):
            finiteness.require()
    else:
        finiteness.require()
    finiteness.require()  # each is named once
