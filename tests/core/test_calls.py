"""What a caller may give to a call beyond condition and seeds, and do with the states of a run."""

import itertools
import json

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st

import composer
from composer import Sampler, hookimpl
from composer.errors import NonFiniteError
from composer.requests import Estimate
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DPMSolverPP, Euler
from composer_plugins import CFG, Anagram, Inpaint, Particles, SDEdit

SCHEDULES = {"flow": FlowSchedule(), "discrete": DiscreteSchedule.linear()}


# One's own noised images


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.sampled_from([Euler(), DDIM(), DPMSolverPP()]),
    st.integers(1, 9),
    st.data(),
)
def test_a_run_that_begins_within_another_ends_like_it(kind, solver, steps, data):
    """Of a solver without memory; a multistep one begins anew, so only from its first time."""
    sampler = Sampler(mixture(SCHEDULES[kind]), [CFG(2.0)], solver, steps)
    multistep = isinstance(solver, DPMSolverPP)
    start = 0 if multistep else data.draw(st.integers(0, steps - 1))
    states = list(sampler.stream(1, [3, 4]))
    if start == 0:
        x, t = first_noise(sampler, [3, 4]), sampler.times[0]
    else:
        x, t = states[start - 1].x, states[start - 1].t
    result = sampler.sample(1, [3, 4], x=x, t=t)
    assert torch.equal(result.x, states[-1].x)
    assert result.stats.calls == steps - start
    streamed = list(sampler.stream(1, [3, 4], x=x, t=torch.tensor(t)))
    assert [state.step for state in streamed] == list(range(steps - start))
    assert torch.equal(streamed[-1].x, result.x)


class Recorder:
    @hookimpl
    def start(self, state):
        self.x = state.x


def first_noise(sampler, seeds):
    recorder = Recorder()
    next(iter(sampler.replace(plugins=[recorder]).stream(None, seeds)))
    return recorder.x


def test_without_a_time_x_is_the_initial_noise():
    """Later draws are those of the seed, whatever it began with."""
    sampler = Sampler(mixture(), solver=DDPM(), num_inference_steps=5)
    x = first_noise(sampler, [7, 8])
    assert torch.equal(sampler.sample(1, [7, 8], x=x).x, sampler.sample(1, [7, 8]).x)
    shared = sampler.sample(1, [7, 8], x=x[:1]).x  # one for all
    torch.testing.assert_close(shared[:1], sampler.sample(1, [7]).x)
    assert not torch.equal(shared[0], shared[1])


@pytest.mark.parametrize("t", [None, 0.5, torch.tensor(0.5)])
def test_a_recipe_repeats_where_a_call_began(t):
    sampler = Sampler(mixture(), num_inference_steps=4)
    x = torch.randn(2, 1, 8, 8)
    result = sampler.sample(1, [0, 1], x=x, t=t)
    before = result.x.clone()
    x.zero_()  # what becomes of the argument changes nothing
    call = composer.call_of(json.loads(json.dumps(result.recipe)))
    assert torch.equal(sampler.sample(**call).x, before)


def test_sdedit_is_to_begin_with_a_noised_image():
    backend = mixture()
    image = backend.means[:1]
    sampler = Sampler(backend, num_inference_steps=10)
    noise = first_noise(sampler, [5])
    x = backend.schedule.add_noise(image, noise, sampler.times[4])
    mine = sampler.sample(1, [5], x=x, t=sampler.times[4])
    theirs = sampler.replace(plugins=[SDEdit(image, i_start=4)]).sample(1, [5])
    assert torch.equal(mine.x, theirs.x)
    # The noise that SDEdit adds may be given, too.
    again = sampler.replace(plugins=[SDEdit(image, i_start=4)]).sample(1, [9], x=noise)
    assert torch.equal(again.x, theirs.x)


def test_x_is_read_and_left_alone():
    sampler = Sampler(
        mixture(), [Inpaint(torch.zeros(1, 8, 8), torch.eye(8))], num_inference_steps=4
    )
    x = torch.randn(1, 1, 8, 8)  # float32, where the loop keeps float64
    before = x.clone()
    result = sampler.sample(1, x=x.requires_grad_())
    assert torch.equal(x, before)
    assert (result.x.dtype, result.x.requires_grad) == (torch.float64, False)


X = torch.zeros(1, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"t": 0.5}, ValueError, "t is the time of x, and x is None"),
        (
            {"x": X, "t": 0.33},
            ValueError,
            r"got 0.33\. The nearest are 0.25 and 0.5\.",
        ),
        ({"x": X, "t": -3}, ValueError, r"got -3\. The nearest are 0 and 0.25\."),
        ({"x": X, "t": 1.0}, ValueError, "t must be a time that a step leaves, got the last, 1"),
        ({"x": X, "t": float("nan")}, ValueError, "t must be finite"),
        ({"x": X, "t": "noise"}, TypeError, "t must be a number, got 'noise'"),
        ({"x": X, "t": torch.zeros(2)}, ValueError, r"t must be one number, got the shape \(2,\)"),
        ({"x": X[0]}, ValueError, r"x must be a floating-point tensor of shape \(B, 1, 8, 8\)"),
        (
            {"x": X.long()},
            ValueError,
            r"floating-point .* got torch.int64 \(1, 1, 8, 8\)",
        ),
        ({"x": "noise"}, ValueError, "x must be a floating-point tensor .* got str"),
        ({"x": X / 0}, ValueError, "x must be finite, got NaN or Inf"),
        ({"x": X.repeat(3, 1, 1, 1), "seeds": [0, 1]}, ValueError, "x: 3 images for 2 seeds"),
    ],
)
def test_what_no_run_can_begin_with_is_one_sentence(arguments, error, sentence):
    sampler = Sampler(mixture(), num_inference_steps=4)
    for call in (sampler.sample, sampler.stream):
        with pytest.raises(error, match=sentence) as raised:
            call(1, **arguments)
        assert "\n" not in str(raised.value)


def test_two_beginnings_are_one_too_many():
    sampler = Sampler(mixture(), [SDEdit(X)], num_inference_steps=4)
    with pytest.raises(ValueError, match="x at a time and SDEdit both set the start. Keep one"):
        sampler.sample(1, x=X, t=0.5)


# Streams


class Finishes:
    """Counts its calls and marks the image."""

    calls = 0

    @hookimpl
    def finish(self, state):
        self.calls += 1
        state.x = state.x + 100


@pytest.mark.parametrize("last", range(5))
def test_stop_ends_a_stream_after_that_state(last):
    plugin = Finishes()
    sampler = Sampler(mixture(), [plugin], num_inference_steps=5)
    seen, whole = [], [state.x for state in Sampler(mixture(), num_inference_steps=5).stream(1)]
    for state in sampler.stream(1):
        seen.append(state.step)
        if state.step == last:
            state.stop()
    assert seen == list(range(last + 1))
    assert plugin.calls == 1
    torch.testing.assert_close(state.x, whole[last] + 100)


def test_to_leave_the_loop_runs_no_finish():
    plugin = Finishes()
    for _ in Sampler(mixture(), [plugin], num_inference_steps=5).stream(1):
        break
    assert plugin.calls == 0


def test_a_stopped_stream_keeps_one_image_a_seed():
    """Particles are several images a seed until ``finish`` chooses."""
    sampler = Sampler(mixture(), [Particles(lambda x: x.mean((1, 2, 3)))])
    for state in sampler.stream(1, [0, 1]):
        if state.step == 10:
            assert len(state.x) == 8
            state.stop()
    assert len(state.x) == len(state.origin) == 2


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_run_goes_on_from_what_x_is_made_on_the_way(in_place, mode):
    sampler = Sampler(mixture(), solver=DDIM(0.5), num_inference_steps=6)

    class Halves:
        @hookimpl
        def post_step(self, state):
            state.x = state.x / 2

    expected = [s.x for s in sampler.replace(plugins=[Halves()]).stream(1)]
    seen = []
    with mode():
        for state in sampler.stream(1):
            if in_place:
                state.x.div_(2)
            else:
                state.x = state.x / 2
            seen.append(state)
    assert all(torch.equal(s.x, x) for s, x in zip(seen, expected, strict=True))


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (X, TypeError, "the reader of the stream: x must be a tensor .*, got torch.float32"),
        (
            X.double()[..., :4],
            TypeError,
            r"the reader of the stream: x must be .* got .* \(1, 1, 8, 4\)",
        ),
        (None, TypeError, "the reader of the stream: x must be a tensor .*, got NoneType"),
    ],
)
def test_what_a_reader_makes_of_x_is_checked(x, error, sentence):
    stream = Sampler(mixture()).stream(1)
    next(stream).x = x
    with pytest.raises(error, match=sentence):
        next(stream)


def last_of(stream, change):
    """Change the last state of a stream, and read the stream to its end."""
    for state in stream:
        if state.finished:
            change(state)
    return state


CHANGES_OF_X = {
    "replaced": lambda state: setattr(state, "x", state.x / 2),
    "in place": lambda state: [state.x.div_(2)].clear(),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("how", CHANGES_OF_X)
@pytest.mark.parametrize("stopped", [None, 1])
def test_what_the_last_state_holds_is_the_result(how, mode, stopped):
    """Also after a plugin stopped the run; ``finish`` does not run again."""
    plugin = Finishes()

    class StopsAt:
        @hookimpl
        def post_step(self, state):
            if state.step == stopped:
                state.stop()

    sampler = Sampler(mixture(), [plugin, StopsAt()], num_inference_steps=3)
    expected = sampler.sample(1, [0, 1]).x / 2
    plugin.calls = 0
    with mode():
        change = CHANGES_OF_X[how]
        result = sampler.sample(1, [0, 1], callback=lambda s: change(s) if s.finished else None)
        assert plugin.calls == 1
        assert torch.equal(result.x, expected)
        assert torch.equal(last_of(sampler.stream(1, [0, 1]), change).x, expected)


class Doubles(type(mixture())):
    """A latent model: its images are twice as large as its latents."""

    image_shape = 1, 16, 16

    def encode_image(self, x):
        return x[..., ::2, ::2]

    def decode(self, z):
        return z.repeat_interleave(2, -1).repeat_interleave(2, -2)

    @hookimpl
    def finish(self, state):
        state.x = self.decode(state.x)


def test_the_last_state_of_a_latent_model_holds_images():
    sampler = Sampler(Doubles(mixture().means, mixture().stds), num_inference_steps=2)
    expected = sampler.sample(1).x / 2
    change = CHANGES_OF_X["replaced"]
    result = sampler.sample(1, callback=lambda s: change(s) if s.finished else None)
    assert result.x.shape == (1, 1, 16, 16)
    assert torch.equal(result.x, expected)
    small = torch.zeros(1, 1, 8, 8, dtype=torch.float64)  # latents, too late
    with pytest.raises(TypeError, match=r"callback: x must be .*16, 16\), got .* \(1, 1, 8, 8\)"):
        sampler.sample(1, callback=lambda s: setattr(s, "x", small))


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        ("junk", TypeError, "x must be a tensor .*, got str"),
        (X, TypeError, "x must be a tensor .*, got torch.float32"),
        (X.double() * torch.nan, NonFiniteError, "x became NaN or Inf in {} at step 2"),
    ],
)
def test_what_the_last_state_holds_is_checked(x, error, sentence):
    sampler = Sampler(mixture(), num_inference_steps=3)

    def change(state):
        if state.finished:
            state.x = x

    with pytest.raises(error, match=sentence.format("callback")):
        sampler.sample(1, callback=change)
    with pytest.raises(error, match=sentence.format("the reader of the stream")):
        last_of(sampler.stream(1), change)


def test_a_state_shows_where_it_is():
    states = list(Sampler(mixture(), num_inference_steps=3).stream(1, [4, 5]))
    assert [state.t_next for state in states] == pytest.approx([2 / 3, 1, None])
    assert [[i.size for i in state.images] for state in states] == [[(8, 8)] * 2] * 3
    assert repr(states[0]) == (
        "State(step=0, t=0.333333 to t=0.666667, x=Tensor[2, 1, 8, 8], condition=1, seeds=(4, 5))"
    )
    assert "t=1 at its end" in repr(states[-1])


def test_a_stream_shows_its_progress(capsys):
    sampler = Sampler(mixture(), num_inference_steps=3)
    list(sampler.stream(1))
    assert capsys.readouterr().err == ""
    list(sampler.stream(1, progress=True))
    assert "3/3" in capsys.readouterr().err
    assert next(sampler.stream(1)).step == 0  # an iterator, with and without
    assert next(sampler.stream(1, progress=True)).step == 0


# Callbacks


def test_a_callback_sees_what_a_stream_shows():
    sampler = Sampler(mixture(), [CFG(2.0)], DDPM(), num_inference_steps=5)
    seen = []
    result = sampler.sample(1, [0, 1], callback=seen.append)
    streamed = list(sampler.stream(1, [0, 1]))
    assert [s.step for s in seen] == [0, 1, 2, 3, 4]
    assert all(torch.equal(a.x, b.x) for a, b in zip(seen, streamed, strict=True))
    assert torch.equal(result.x, sampler.sample(1, [0, 1]).x)


def test_a_callback_may_stop_the_run():
    plugin = Finishes()
    sampler = Sampler(mixture(), [plugin], num_inference_steps=5)
    whole = [state.x for state in Sampler(mixture(), num_inference_steps=5).stream(1)]
    result = sampler.sample(1, callback=lambda s: s.stop() if s.step == 2 else None)
    assert (result.stats.calls, plugin.calls) == (3, 1)
    torch.testing.assert_close(result.x, whole[2] + 100)


def test_what_a_callback_returns_is_refused():
    with pytest.raises(TypeError, match=r"callback must return None, got dict\. .* set state\.x"):
        Sampler(mixture()).sample(1, callback=lambda state: {"latents": state.x})


@pytest.mark.parametrize("callback", [5, "print", [print]])
def test_what_is_no_callback_costs_no_step(callback, monkeypatch):
    backend = mixture()
    monkeypatch.setattr(type(backend), "evaluate", lambda *a: pytest.fail("the model was called"))
    with pytest.raises(TypeError, match="callback must be a function of one state, or None, got"):
        Sampler(backend).sample(1, callback=callback)


@pytest.mark.parametrize("progress", ["no", 1, None])
def test_progress_is_a_switch(progress):
    with pytest.raises(TypeError, match="progress must be True or False, got"):
        Sampler(mixture()).sample(1, progress=progress)


# One step


NUMBERS = [0.4, torch.tensor(0.4), torch.tensor(0.4, dtype=torch.float64)]


@pytest.mark.parametrize("t", NUMBERS)
def test_a_time_may_be_a_tensor_of_one_number(t):
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    estimate = Sampler(mixture(), [CFG(3.0)]).denoise(x, t, 1)
    assert isinstance(estimate, Estimate)
    torch.testing.assert_close(
        estimate.x0, Sampler(mixture(), [CFG(3.0)]).denoise(x, float(t), 1).x0
    )


@pytest.mark.parametrize("images", [1, 2, 3])
def test_one_time_in_a_tensor_is_that_of_all_images(images):
    x, sampler = torch.randn(images, 1, 8, 8, dtype=torch.float64), Sampler(mixture())
    seen = sampler.denoise(x, torch.tensor([0.4], dtype=torch.float64), 1)
    torch.testing.assert_close(seen.x0, sampler.denoise(x, 0.4, 1).x0)


def test_diffusers_timesteps_are_times():
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    estimate = Sampler(backend).denoise(x, torch.tensor(500), 1)
    assert torch.equal(estimate.x0, Sampler(backend).denoise(x, 500, 1).x0)


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
@pytest.mark.parametrize("max_rows", [None, 3])
def test_a_time_an_image(kind, max_rows):
    backend = mixture(SCHEDULES[kind])
    sampler = Sampler(backend, [Anagram({"identity": 0, "flip": 1}), CFG(3.0)], max_rows=max_rows)
    times = [backend.schedule.time_at(level) for level in (0.9, 0.2, 0.9, 0.5)]
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    seen = sampler.denoise(x, torch.tensor(times, dtype=torch.float64))
    alone = [sampler.denoise(x[k : k + 1], t) for k, t in enumerate(times)]
    for name in ("x0", "noise", "prediction", "x"):
        torch.testing.assert_close(
            getattr(seen, name), torch.cat([getattr(one, name) for one in alone])
        )
    assert seen.t.tolist() == times
    assert seen.variance is None


def test_a_time_an_image_is_one_call():
    calls = []
    backend = mixture()
    evaluate = type(backend).evaluate

    class Counting(type(backend)):
        def evaluate(self, batch):
            calls.append(len(batch))
            return evaluate(self, batch)

    counting = Counting(backend.means, backend.stds)
    Sampler(counting, [CFG(3.0)]).denoise(torch.zeros(3, 1, 8, 8), torch.tensor([0.1, 0.2, 0.3]), 1)
    assert calls == [6]


@pytest.mark.parametrize(
    ("t", "error", "sentence"),
    [
        (
            torch.zeros(3),
            ValueError,
            r"t must be one time, or one for each of 2 images, got \(3,\)",
        ),
        (torch.zeros(2, 1), ValueError, "t must be one time"),
        (torch.tensor([0.1, torch.nan]), ValueError, "t must be finite"),
        (torch.tensor([0.1, 7.0]), ValueError, r"times must be in \[0, 1\]"),
        (None, TypeError, "t must be a number, got None"),
        ([0.1, 0.2], TypeError, "t must be a number"),
    ],
)
def test_what_is_no_time_is_one_sentence(t, error, sentence):
    with pytest.raises(error, match=sentence):
        Sampler(mixture()).denoise(torch.zeros(2, 1, 8, 8), t, 1)


# Another sampler


CHANGES = {
    "plugins": [CFG(2.0)],
    "solver": DDPM(),
    "num_inference_steps": 3,
    "max_rows": 2,
    "backend": mixture(DiscreteSchedule.linear(), "v"),
}


@pytest.mark.parametrize(
    "names", [c for n in (0, 1, 2, 5) for c in itertools.combinations(CHANGES, n)]
)
def test_a_sampler_with_other_arguments(names):
    given = {"backend": mixture(), "plugins": [CFG(1.5)], "num_inference_steps": 4}
    changes = {name: CHANGES[name] for name in names}
    sampler = Sampler(**given)
    replaced = sampler.replace(**changes)
    assert torch.equal(replaced.sample(1).x, Sampler(**{**given, **changes}).sample(1).x)
    assert torch.equal(sampler.sample(1).x, Sampler(**given).sample(1).x)  # which is left alone


def test_a_default_solver_is_the_new_backends():
    class Other(type(mixture())):
        default_solver = DDPM()

    other = Other(mixture().means, mixture().stds)
    assert Sampler(mixture()).replace(backend=other).solver is other.default_solver
    assert isinstance(Sampler(mixture(), solver=DDIM()).replace(backend=other).solver, DDIM)


def test_replace_knows_its_arguments():
    with pytest.raises(TypeError, match="num_steps"):
        Sampler(mixture()).replace(num_steps=3)
    with pytest.raises(ValueError, match="num_inference_steps must be"):
        Sampler(mixture()).replace(num_inference_steps=0)


def test_several_images_of_one_seed_share_what_is_held_per_seed():
    """Three images of two seeds, at one time and at a time each, against each image alone."""
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampler = Sampler(mixture(), [CFG((1.0, 3.0))])
    for t in (0.4, torch.tensor([0.4, 0.4, 0.4])):
        seen = sampler.denoise(x, t, [0, 1], origin=[1, 0, 1]).x0
        for image, seed in enumerate([1, 0, 1]):
            alone = Sampler(mixture(), [CFG((1.0, 3.0)[seed])]).denoise(x[[image]], 0.4, seed)
            torch.testing.assert_close(seen[[image]], alone.x0)
    with pytest.raises(ValueError, match="denoise: origin must be 3, one per image, got 2"):
        sampler.denoise(x, 0.4, [0, 1], origin=[0, 1])
    with pytest.raises(TypeError, match="denoise: origin must be an integer, got 'a'"):
        sampler.denoise(x, 0.4, [0, 1], origin=[0, 1, "a"])
