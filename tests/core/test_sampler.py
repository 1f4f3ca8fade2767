import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Plugin, Sampler, hookimpl
from composer.solvers import DDIM, DDPM, Heun
from composer.testing import IdentityBackend
from composer_plugins import CFG, Anagram, Hybrid, Inpaint, SDEdit


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6), st.integers(0, 5))
def test_an_image_depends_on_its_own_seed_alone(seeds, place):
    sampler = Sampler(mixture(), [CFG(2.0)], DDPM(), num_inference_steps=4)
    place %= len(seeds)
    batch = sampler.sample(1, seeds=seeds).x[place]
    alone = sampler.sample(1, seeds=[seeds[place]]).x[0]
    torch.testing.assert_close(batch, alone, rtol=1e-9, atol=1e-9)


def test_noise_is_bitwise_the_same_alone_and_in_a_batch_of_64():
    class Recorder:
        def __init__(self):
            self.draws = []

        @hookimpl
        def start(self, state):
            self.draws.append(state.x)

        @hookimpl
        def post_step(self, state):
            self.draws.append(state.randn())

    def draws(seeds):
        recorder = Recorder()
        Sampler(mixture(), [recorder], num_inference_steps=3).sample(1, seeds=seeds)
        return torch.stack(recorder.draws)

    batch = draws(range(64))
    for k in (0, 17, 63):
        assert torch.equal(batch[:, k : k + 1], draws([k]))


def test_batch_equals_singles_on_the_network(tiny_mnist):
    """Stated tolerance of images: 1e-5; convolutions round differently in other batch shapes."""
    sampler = Sampler(tiny_mnist, [Anagram({"identity": 6, "rotate_180": 9}), CFG(3.0)])
    batch = sampler.sample(seeds=range(6)).x
    singles = torch.cat([sampler.sample(seeds=[k]).x for k in range(6)])
    torch.testing.assert_close(batch, singles, rtol=1e-5, atol=1e-5)


def test_the_same_call_gives_the_same_bits():
    sampler = Sampler(mixture(), [CFG(2.0)], DDIM(eta=0.5))
    assert torch.equal(sampler.sample(1, seeds=[7]).x, sampler.sample(1, seeds=[7]).x)


def test_global_random_state_is_neither_read_nor_written():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    x = Sampler(mixture(), solver=DDPM()).sample(1).x
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(Sampler(mixture(), solver=DDPM()).sample(1).x, x)


def test_stream_shows_every_step_and_sample_is_its_end():
    sampler = Sampler(mixture(), [CFG(2.0)], num_inference_steps=5)
    states = list(sampler.stream(1, seeds=[0, 1]))
    assert [state.step for state in states] == [0, 1, 2, 3, 4]
    assert [state.t for state in states] == sampler.times[1:]
    assert all(state.estimate is not None and state.condition == 1 for state in states)
    assert len({id(state.x) for state in states}) == 5
    assert torch.equal(states[-1].x, sampler.sample(1, seeds=[0, 1]).x)


def test_estimates_read_as_image_and_noise():
    backend = mixture()
    for state in Sampler(backend, num_inference_steps=6).stream(1):
        estimate = state.estimate
        alpha, sigma = backend.schedule.at(estimate.t)
        torch.testing.assert_close(alpha * estimate.x0 + sigma * estimate.noise, estimate.x)


def test_one_step_denoising_is_the_posterior_mean():
    backend = mixture()
    x0, noise = backend.means[:1], torch.randn(1, 1, 8, 8, dtype=torch.float64)
    x = backend.schedule.add_noise(x0, noise, 0.4)
    expected = backend.posterior_mean(x, 0.4, 0.6, 0)
    torch.testing.assert_close(Sampler(backend).denoise(x, 0.4, 0).x0, expected)


class StopAfter:
    def __init__(self, step):
        self.step_number, self.finished = step, 0

    @hookimpl
    def post_step(self, state):
        if state.step == self.step_number:
            state.stop()

    @hookimpl
    def finish(self, state):
        self.finished += 1


def test_a_post_step_can_stop_the_run():
    plugin = StopAfter(2)
    stats = Sampler(mixture(), [plugin], num_inference_steps=10).sample(1).stats
    assert (stats.calls, plugin.finished) == (3, 1)


def test_leaving_the_stream_costs_no_further_call():
    calls = []
    for state in Sampler(mixture(), num_inference_steps=10).stream(1):
        calls.append(state.step)
        if state.step == 1:
            break
    assert calls == [0, 1]


class Order:
    def __init__(self, name, log):
        self.name, self.log = name, log

    @hookimpl
    def start(self, state):
        self.log.append(("start", self.name))

    @hookimpl
    def noise_estimate(self, request):
        self.log.append(("ask", self.name))
        (estimate,) = yield [request]
        self.log.append(("answer", self.name))
        return estimate

    @hookimpl
    def post_step(self, state):
        self.log.append(("post_step", self.name))


def test_plugins_read_like_function_composition():
    log = []
    Sampler(mixture(), [Order("outer", log), Order("inner", log)], num_inference_steps=1).sample()
    assert log == [
        ("start", "outer"), ("start", "inner"),
        ("ask", "outer"), ("ask", "inner"), ("answer", "inner"), ("answer", "outer"),
        ("post_step", "outer"), ("post_step", "inner"),
    ]  # fmt: skip


class TakesStep:
    @hookimpl
    def step(self, state, estimate):
        return estimate.x0 if state.step == 1 else None


def test_a_plugin_may_take_a_step_and_leave_the_others():
    states = list(Sampler(mixture(), [TakesStep()], num_inference_steps=3).stream(1))
    assert torch.equal(states[1].x, states[1].estimate.x0)
    assert not torch.equal(states[0].x, states[0].estimate.x0)


def test_progress_can_be_shown_and_is_off_by_default(capsys):
    sampler = Sampler(mixture(), num_inference_steps=3)
    sampler.sample(1)
    assert capsys.readouterr().err == ""
    sampler.sample(1, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_heun_counts_its_second_evaluations():
    stats = Sampler(mixture(), [CFG(2.0)], Heun(), num_inference_steps=5).sample(1).stats
    assert (stats.calls, stats.evaluated) == (9, 18)


def test_images_are_clipped_greyscale_pictures():
    (image,) = Sampler(mixture(), num_inference_steps=2).sample(1).images
    assert (image.mode, image.size) == ("L", (8, 8))


EVERYTHING = [
    SDEdit(torch.full((1, 8, 8), 0.2), strength=0.8),
    Inpaint(torch.zeros(1, 8, 8), torch.eye(8), "renoise"),
    Anagram({"identity": Hybrid(0, 1), "rotate_180": 2}),
    CFG(3.0),
]


def test_everything_stacks_in_one_run():
    result = Sampler(mixture(), EVERYTHING, num_inference_steps=10).sample(seeds=[0, 1])
    # Two views: three conditions and two unconditional rows, 8 of 10 steps.
    assert (result.stats.calls, result.stats.evaluated) == (8, 8 * 5)
    known = torch.eye(8) == 0
    assert (result.x[..., known] == 0).all()


def test_the_order_of_start_and_projection_does_not_matter():
    forwards = Sampler(mixture(), EVERYTHING, num_inference_steps=10).sample(seeds=[0, 1]).x
    sdedit, inpaint, *rest = EVERYTHING
    swapped = Sampler(mixture(), [*rest, inpaint, sdedit], num_inference_steps=10)
    torch.testing.assert_close(swapped.sample(seeds=[0, 1]).x, forwards)


class TypoHook:
    @hookimpl
    def poststep(self, state): ...


class WrongArgument:
    @hookimpl
    def post_step(self, stat): ...


class NoHook:
    def post_step(self, state): ...


class Silent: ...


class NoRequest:
    @hookimpl
    def noise_estimate(self):
        yield []


@dataclass(frozen=True)
class Equal:
    @hookimpl
    def post_step(self, state): ...


class Both:
    @hookimpl
    def post_step(self, state): ...

    @hookimpl
    def noise_estimate(self, request):
        return (yield [request])[0]


class Pair(NamedTuple):
    """A plugin that is a tuple, too."""

    first: int
    second: int

    @hookimpl
    def post_step(self, state): ...


def test_a_tuple_with_hooks_is_a_plugin():
    assert Sampler(mixture(), [Pair(1, 2)]).plugins == (Pair(1, 2),)


NESTED = SDEdit(torch.zeros(1, 8, 8))
REFUSED = [
    ({"num_inference_steps": 0}, ValueError, "num_inference_steps must be an integer of at least"),
    ({"num_inference_steps": 2.5}, TypeError, "num_inference_steps must be an integer"),
    ({"max_rows": 0}, ValueError, "max_rows"),
    ({"plugins": [CFG]}, TypeError, r"got the class CFG. Write CFG\(\.\.\.\)"),
    ({"plugins": "cfg"}, TypeError, "plugins must be a list"),
    ({"plugins": {"cfg": 4.0}}, TypeError, "plugins must be a list"),
    ({"plugins": ["cfg"]}, TypeError, r"plugins must be objects, got 'cfg'. Write CFG\(\.\.\.\)"),
    ({"plugins": ["cgf"]}, LookupError, "Unknown plugin 'cgf'. Did you mean cfg"),
    ({"plugins": [{"plugin": "cfg"}]}, TypeError, "Load a recipe with Sampler.from_recipe"),
    ({"plugins": [DDIM()]}, TypeError, r"DDIM is a solver. Pass it as solver=DDIM"),
    (
        {"plugins": [[CFG(2.0)]]},
        TypeError,
        r"must be a flat list of plugin objects, got one with \[",
    ),
    ({"plugins": [(CFG(2.0), CFG(3.0))]}, TypeError, r"a flat list of .*, got one with \("),
    ({"plugins": [CFG(2.0), 5]}, TypeError, "a flat list of plugin objects, got one with 5 in it"),
    ({"plugins": [None]}, TypeError, "a flat list of plugin objects, got one with None in it"),
    ({"debug": "no"}, TypeError, "debug must be True or False, got 'no'"),
    ({"plugins": [Silent()]}, TypeError, "Silent answers no hook"),
    ({"plugins": [Equal(), Equal()]}, ValueError, "got two equal Equal. Declare it eq=False"),
    ({"plugins": [NoRequest()]}, TypeError, "must take one argument, the request"),
    ({"plugins": [Hybrid(Both(), 2)]}, ValueError, "Hybrid: Both answers post_step and cannot"),
    (
        {"plugins": [NoHook()]},
        TypeError,
        r"NoHook: post_step has the name of a hook and no mark. Mark it with @composer\.hookimpl",
    ),
    ({"plugins": [TypoHook()]}, ValueError, "TypoHook does not fit the hooks.*poststep"),
    ({"plugins": [WrongArgument()]}, ValueError, "WrongArgument does not fit the hooks.*stat"),
    ({"plugins": [CFG(2.0)] * 2}, ValueError, "got one CFG twice"),
    (
        {"plugins": [Anagram({"flip": 1}), Hybrid(1, 2)]},
        ValueError,
        "Anagram and Hybrid both set conditions.*Put one inside the other",
    ),
    (
        {"plugins": [SDEdit(torch.zeros(1, 8, 8)), SDEdit(torch.zeros(1, 8, 8))]},
        ValueError,
        "two SD",
    ),
    (
        {"plugins": [Hybrid(NESTED, 2)]},
        ValueError,
        "Hybrid: SDEdit has no noise_estimate and cannot stand",
    ),
    ({"plugins": [Hybrid("a prompt", 2)]}, ValueError, "Hybrid: a condition must be a component"),
    ({"plugins": [Hybrid(CFG, 2)]}, TypeError, "Hybrid: condition must be an object, got"),
    ({"plugins": [Hybrid([1], 2)]}, TypeError, "Hybrid: a condition must be hashable"),
]


@pytest.mark.parametrize(("arguments", "error", "sentence"), REFUSED)
def test_a_bad_stack_is_refused_when_built(arguments, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        Sampler(mixture(), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "seeds", "error", "sentence"),
    [
        (1, [], ValueError, "seeds must not be empty"),
        (1, [0.5], TypeError, "seeds must be integers, got 0.5"),
        (1, ["1"], TypeError, "seeds must be integers"),
        (1, [True], ValueError, "seeds must be integers"),
        (1, [-1], ValueError, "from 0 to"),
        (1, [2**32], ValueError, "from 0 to"),
        (1, b"12", TypeError, "must be a sequence of integers"),
        (1, 3, TypeError, "must be a sequence of integers, got 3. Give"),
        (99, [0], ValueError, "condition: a condition must be a component from 0 to 3, got 99"),
        ("six", [0], ValueError, "got 'six'"),
        ({1}, [0], TypeError, "must be hashable, got set. Give one per seed"),
        ([1, 2], [0], ValueError, "condition must be one for all, or one per seed, 1 in all"),
        (
            [1, 99],
            [0, 1],
            ValueError,
            "condition: a condition must be a component from 0 to 3, got 99",
        ),
        ([1, None], [0, 1], TypeError, "condition: each of several conditions must be a condition"),
        ([1, CFG(2.0)], [0, 1], TypeError, "each of several conditions must be a condition, got C"),
        ([], [0], TypeError, "conditions must be a list of one per seed"),
        (CFG(2.0), [0], TypeError, "got the plugin CFG"),
    ],
)
def test_a_bad_call_is_refused_before_any_model_call(
    condition, seeds, error, sentence, monkeypatch
):
    backend = mixture()
    monkeypatch.setattr(type(backend), "evaluate", lambda *a: pytest.fail("the model was called"))
    sampler = Sampler(backend)
    with pytest.raises(error, match=sentence):
        sampler.sample(condition, seeds)
    with pytest.raises(error, match=sentence):
        sampler.stream(condition, seeds)


def test_a_condition_that_would_silence_a_plugin_is_refused():
    sampler = Sampler(mixture(), [Hybrid(0, 1)])
    with pytest.raises(ValueError, match="condition=2 would replace the conditions that Hybrid"):
        sampler.sample(2)
    sampler.sample(UNCONDITIONAL)


def test_views_may_leave_the_condition_to_the_call():
    sampler = Sampler(mixture(), [Anagram({"identity": None, "flip": None}), CFG(2.0)])
    assert sampler.sample(1).stats.evaluated == 20 * 4


def test_integers_of_numpy_are_integers():
    sampler = Sampler(mixture(), num_inference_steps=np.int64(2))
    assert sampler.sample(1, seeds=np.arange(2)).seeds == (0, 1)


def test_a_backend_name_is_not_a_backend():
    with pytest.raises(TypeError, match=r"composer\.load_backend\('mnist'\)"):
        Sampler("mnist")
    with pytest.raises(TypeError, match="backend must be a backend, got int"):
        Sampler(3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 8, 8), (2, 1, 8, 9)])
def test_denoise_refuses_another_shape(shape):
    with pytest.raises(ValueError, match="x must be a floating-point tensor of shape"):
        Sampler(mixture()).denoise(torch.zeros(shape), 0.5)


def test_a_result_describes_itself():
    result = Sampler(mixture(), [CFG(2.0)]).sample(1, seeds=[3])
    json.dumps(result.recipe)
    assert result.seeds == (3,)
    assert result.stats.seconds >= result.stats.model_seconds > 0


def test_streamed_states_are_snapshots():
    """Whatever is done to them, but to x, the run goes on as it would."""
    sampler = Sampler(mixture(), solver=DDPM(), num_inference_steps=6)
    for state in sampler.stream(1, seeds=[0]):
        state.randn()
        state.memory["mine"] = 1
        state.times.clear()
        state.estimate.prediction.mul_(0)
        state.estimate.x0.mul_(0)
    assert torch.equal(state.x, sampler.sample(1, seeds=[0]).x)


class Changes:
    """Sets x in one hook."""

    def __init__(self, hook, change):
        self.hook, self.change = hook, change

    @hookimpl
    def post_step(self, state):
        if self.hook == "post_step":
            state.x = self.change(state.x)

    @hookimpl
    def finish(self, state):
        if self.hook == "finish":
            state.x = self.change(state.x)


@pytest.mark.parametrize("hook", ["post_step", "finish"])
@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (lambda x: x * math.nan, ArithmeticError, "x became NaN or Inf in"),
        (
            lambda x: x[..., :4],
            TypeError,
            r"x must be a tensor .*, got torch.float64 \(1, 1, 8, 4\)",
        ),
        (
            lambda x: torch.cat([x, x]),
            TypeError,
            r"x must be a tensor .*, got torch.float64 \(2, 1, 8, 8\)",
        ),
        (lambda x: x.numpy(), TypeError, "x must be a tensor .*, got ndarray"),
        (lambda x: x.float(), TypeError, "x must be a tensor .*, got torch.float32"),
    ],
)
def test_what_hooks_make_of_the_image_is_checked(hook, change, error, what):
    with pytest.raises(error, match=what) as raised:
        Sampler(mixture(), [Changes(hook, change)]).sample(1)
    assert hook in str(raised.value)


class Asks:
    """A plugin of one function from the request to a generator."""

    def __init__(self, ask):
        self.ask = ask

    @hookimpl
    def noise_estimate(self, request):
        return (yield from self.ask(request))


def unturned(request):
    a, b = yield [request, request.replace(x=request.x.flip(-1))]
    return 0.5 * (a + b.replace(prediction=b.prediction.flip(-1)))


def elsewhen(request):
    return (yield [request.replace(t=0.9)])[0]


def two_times(request):
    a, b = yield [request, request.replace(t=0.9)]
    return a + b


def writing(request):
    request.x.mul_(0.5)
    return (yield [request])[0]


def of_another_size(request):
    return (yield [request.replace(x=request.x[..., :4])])[0]


def at_no_time(request):
    return (yield [request.replace(t="a")])[0]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (unturned, r"must have the same x to be combined, .* estimate.seen_back\(view\)"),
        (
            elsewhen,
            "Asks.noise_estimate must return an estimate at t = 0, got t = 0.9",
        ),
        (two_times, "to be combined, got .* at t = 0 and .* at t = 0.9"),
        (writing, "Asks.noise_estimate wrote into request.x. Work on a copy"),
        (of_another_size, r"Request: x must have .* got \(1, 1, 8, 4\)"),
        (at_no_time, "Request: t must be a"),
    ],
)
def test_what_a_plugin_mixes_up_is_refused(ask, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        Sampler(mixture(), [Asks(ask)]).sample(1)


def test_estimates_can_be_summed():
    def mean(request):
        return sum((yield [request, request])) / 2

    plain = Sampler(mixture()).sample(1).x
    torch.testing.assert_close(Sampler(mixture(), [Asks(mean)]).sample(1).x, plain)


@pytest.mark.parametrize("name", ["solver", "plugins", "num_inference_steps", "backend"])
def test_a_sampler_is_not_changed_after_it_was_checked(name):
    with pytest.raises(AttributeError, match=f"property '{name}'"):
        setattr(Sampler(mixture()), name, Heun())


def test_a_recipe_is_of_the_call_whatever_becomes_of_its_arguments():
    image = torch.zeros(1, 8, 8)
    sampler = Sampler(mixture(), [SDEdit(image)], num_inference_steps=4)
    result = sampler.sample(1)
    again = result.recipe["plugins"]
    image.fill_(1)
    assert result.recipe["plugins"] == again
    assert sampler.sample(1).recipe["plugins"] != again


def test_hooks_run_without_gradients():
    seen = []

    class Watcher:
        @hookimpl
        def start(self, state):
            seen.append(torch.is_grad_enabled())

        @hookimpl
        def post_step(self, state):
            seen.append(torch.is_grad_enabled())

        @hookimpl
        def finish(self, state):
            seen.append(torch.is_grad_enabled())

    Sampler(mixture(), [Watcher()], num_inference_steps=1).sample(1)
    assert seen == [False, False, False]
    assert torch.is_grad_enabled()


class Starts:
    def __init__(self, change):
        self.change = change

    @hookimpl
    def start(self, state):
        self.change(state)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.times.clear(), "start left no step"),
        (lambda s: s.stop(), "start left no step"),
        (lambda s: s.times.reverse(), "must end in a step, got a jump back to noise"),
        (
            lambda s: setattr(s, "x", s.x[:1]),
            r"start: x must be a tensor .*, got torch.float64 \(1, 1, 8, 8\)",
        ),
        (lambda s: s.times.__setitem__(2, math.nan), "a time in state.times must be"),
        (lambda s: s.times.__setitem__(2, None), "a time in state.times must be"),
        (lambda s: setattr(s, "x", s.x.half()), "start: x must be a tensor .*, got torch.float16"),
        (lambda s: setattr(s, "x", None), "start: x must be a tensor .*, got NoneType"),
        (
            lambda s: s.times.__setitem__(-2, s.times[-1]),
            "must not step from 1, where the image is clean",
        ),
        (lambda s: s.times.__setitem__(2, 7.0), r"times must be in \[0, 1\]"),
        (
            lambda s: setattr(s, "times", None),
            "start: state.times must be a list of times, got None",
        ),
        (
            lambda s: setattr(s, "times", 0.5),
            "start: state.times must be a list of times, got float",
        ),
        (
            lambda s: setattr(s, "generators", ()),
            r"start: state.generators must be a tuple .* got \(\)",
        ),
        (
            lambda s: setattr(s, "generators", None),
            "state.generators must be a tuple of .* got None",
        ),
        (lambda s: setattr(s, "generators", s.generators[:1]), "2 in all"),
    ],
)
def test_what_start_leaves_is_checked(change, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        Sampler(mixture(), [Starts(change)]).sample(1, seeds=[0, 1])


class Replans:
    """Changes the plan after the third step."""

    def __init__(self, change):
        self.change = change

    @hookimpl
    def post_step(self, state):
        if state.step == 2:
            self.change(state)


def cut(state):
    del state.times[state.position + 1 :]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (cut, r"post_step: state.times must keep .* end at 1\. Call state.stop\(\) to end"),
        (lambda s: setattr(s, "times", s.times[:-1]), "post_step: state.times must keep"),
        (
            lambda s: setattr(s, "times", s.times[2:]),
            r"must keep 0\.3 at state.position, where x is",
        ),
        (lambda s: s.times.clear(), "post_step left no step"),
        (
            lambda s: setattr(s, "times", None),
            "post_step: state.times must be a list of times, got NoneType",
        ),
        (lambda s: s.times.insert(-1, 2.0), r"times must be in \[0, 1\]"),
        (lambda s: s.times.insert(-1, math.nan), "after post_step, a time in state.times must be"),
        (lambda s: s.times.append(1.0), "must not step from 1, where the image is clean"),
        (lambda s: s.times.append(0.5), "must end in a step, got a jump back to noise"),
    ],
)
def test_a_plan_that_post_step_spoils_is_no_image(change, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        Sampler(mixture(), [Replans(change)], num_inference_steps=10).sample(1)


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        (lambda s: s.times.insert(s.position + 1, (s.t + s.t_next) / 2), 11),
        (lambda s: s.times.pop(-2), 9),
        (lambda s: setattr(s, "times", [*s.times[:4], *s.times[2:]]), 11),  # back to .2, once
        (lambda s: (cut(s), s.stop()), 3),
    ],
)
def test_post_step_may_change_how_the_run_goes_on(change, calls):
    plugin = Replans(change)
    stats = Sampler(mixture(), [plugin], num_inference_steps=10).sample(1).stats
    assert stats.calls == calls


class Steps:
    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    def step(self, state, estimate):
        return self.answer(estimate)


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (lambda e: e, TypeError, "step: x must be a tensor .*, got Estimate"),
        (lambda e: e.x[0], TypeError, "step: x must be a tensor .*, got torch"),
        (
            lambda e: e.x * float("nan"),
            ArithmeticError,
            "became NaN or Inf in step at step 0 although the model",
        ),
    ],
)
def test_what_step_returns_is_checked(answer, error, sentence):
    with pytest.raises(error, match=sentence):
        Sampler(mixture(), [Steps(answer)]).sample(1)


@pytest.mark.parametrize("t", [-0.1, 1.5])
def test_times_off_the_path_are_refused(t):
    with pytest.raises(ValueError, match=r"times must be in \[0, 1\]"):
        Sampler(mixture()).denoise(torch.zeros(1, 1, 8, 8), t)


class Clipping(IdentityBackend):
    """A backend with hooks of its own: clips what every stack makes, and lays an image beside."""

    seen: list[float]

    @hookimpl
    def start(self, state):
        state.beside["low"] = torch.full_like(state.x, 3.0)

    @hookimpl
    def noise_estimate(self, request):
        (estimate,) = yield [request]
        return estimate.with_x0(estimate.x0.clamp(-1, 1))

    def evaluate(self, batch):
        self.seen = batch.beside["low"].mean((1, 2, 3)).tolist()
        return super().evaluate(batch)


def test_a_backend_may_answer_hooks_and_is_outermost():
    backend = Clipping((1, 4, 4))
    result = Sampler(backend, [Anagram({"identity": 0, "flip": 1}), CFG(9.0)]).sample(seeds=[0])
    assert result.x.abs().max() <= 1 + 1e-6
    assert Sampler(IdentityBackend((1, 4, 4))).sample(seeds=[0]).x.abs().max() > 1
    assert backend.seen == [3.0] * 4  # two views, each with and without its condition


@pytest.mark.parametrize(
    ("x", "t", "error", "sentence"),
    [
        (torch.full((1, 1, 8, 8), torch.nan), 0.5, ValueError, "x must be finite, got NaN or Inf"),
        (torch.zeros(1, 1, 8, 8), float("nan"), ValueError, "t must be"),
        (torch.zeros(1, 1, 8, 8), "0.5", TypeError, "t must be"),
    ],
)
def test_denoise_refuses_what_is_no_number(x, t, error, sentence):
    with pytest.raises(error, match=sentence):
        Sampler(mixture()).denoise(x, t)


class Stops:
    """Raises StopIteration in one hook, as ``next(iterator)`` does at its end."""

    def __init__(self, hook):
        self.hook = hook

    def _stop(self, hook):
        if hook == self.hook:
            next(iter(()))

    @hookimpl
    def start(self, state):
        self._stop("start")

    @hookimpl
    def step(self, state, estimate):
        self._stop("step")

    @hookimpl
    def post_step(self, state):
        self._stop("post_step")

    @hookimpl
    def finish(self, state):
        self._stop("finish")


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("hook", ["start", "step", "post_step", "finish"])
def test_a_stop_iteration_of_a_hook_ends_no_loop_of_the_caller(hook, debug):
    sampler = Sampler(mixture(), [Stops(hook)], num_inference_steps=2, debug=debug)
    for call in (sampler.sample, lambda c: list(sampler.stream(c))):
        with pytest.raises(
            RuntimeError, match=rf"^{hook} raised StopIteration\. Give next"
        ) as raised:
            call(1)
        assert isinstance(raised.value.__cause__, StopIteration)


def test_a_stop_iteration_of_a_backend_ends_no_loop_of_the_caller():
    class Ends(type(mixture())):
        def evaluate(self, batch):
            return next(iter(()))

    sampler = Sampler(Ends(mixture().means, mixture().stds), [CFG(2.0)], num_inference_steps=2)
    x = torch.zeros(1, 1, 8, 8)
    calls = sampler.sample, lambda c: list(sampler.stream(c)), lambda c: sampler.denoise(x, 0.5, c)
    for call in calls:
        with pytest.raises(RuntimeError, match=r"^Ends\.evaluate raised StopIteration\. Give"):
            call(1)


def test_a_plugin_that_needs_the_noise_of_the_reverse_sde_raises_under_other_solvers():
    class Needs(Plugin):
        needs_ancestral = True

        @hookimpl
        def post_step(self, state):
            pass

    for solver in (None, DDIM(0.5)):
        with pytest.raises(ValueError, match="Needs: solver must draw the noise"):
            Sampler(mixture(), [Needs()], solver)
    for solver in (DDPM(), DDIM(1.0)):
        Sampler(mixture(), [Needs()], solver)
