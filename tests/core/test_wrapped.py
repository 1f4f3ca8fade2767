"""A network becomes a backend by ``composer.wrap``."""

import copy
import pickle

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_unet import load, write
from torch import nn

import composer
from composer import UNCONDITIONAL, Request, Sampler, wrap
from composer.model import evaluated
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDPM, Euler
from composer.testing import check_backend
from composer_plugins import CFG, DPS, Anagram

SCHEDULES = {"flow": FlowSchedule(), "discrete": DiscreteSchedule.linear(100)}
NONE = 9


class Exact:
    """The exact model of a mixture as a plain function of rows: net(x, t, label)."""

    def __init__(self, backend, null=NONE):
        self.backend, self.null = backend, null
        self.calls = []

    def __call__(self, x, t, label):
        self.calls.append(None if label is None else label.tolist())
        assert t.shape == (len(x),)
        labels = [self.null] * len(x) if label is None else label.tolist()
        rows = [
            Request(row, time, UNCONDITIONAL if number == self.null else number)
            for row, time, number in zip(x.split(1), t.tolist(), labels, strict=True)
        ]
        return torch.cat([o.prediction for o in evaluated(self.backend, rows)])


def wrapped(backend, net=None, **options):
    given = {"shape": (1, 8, 8), "schedule": backend.schedule, "prediction": backend.prediction}
    options = {"classes": 4, "null": NONE, "dtype": torch.float64, **options}
    return wrap(net or Exact(backend), **{**given, **options})


@settings(max_examples=20)
@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.sampled_from(sorted(PREDICTIONS)),
    st.sampled_from([NONE, None]),
    st.sampled_from([None, 1, 3]),
)
def test_it_samples_what_the_network_models(schedule, kind, null, max_rows):
    backend = mixture(SCHEDULES[schedule], kind)
    stack = [Anagram({"identity": 0, "flip": "3"}), CFG(2.0)]
    seen = [
        Sampler(b, stack, Euler(), 3, max_rows).sample(seeds=[0, 1])
        for b in (wrapped(backend, null=null), backend)
    ]
    torch.testing.assert_close(seen[0].x, seen[1].x)
    assert seen[0].stats.rows == seen[1].stats.rows


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("null", [NONE, None])
def test_it_keeps_the_contract(schedule, null):
    check_backend(wrapped(mixture(SCHEDULES[schedule], "v"), null=null), [0, "3"])


def test_a_step_is_one_call_or_two_if_no_label_is_none():
    backend = mixture()
    for null, calls in ((NONE, [[2, 2, NONE, NONE]]), (None, [[2, 2], None])):
        net = Exact(backend)
        sampler = Sampler(wrapped(backend, net, null=null), [CFG(2.0)], num_inference_steps=1)
        sampler.sample(2, seeds=[0, 1])
        assert net.calls == calls


def test_without_classes_the_network_takes_two_arguments():
    backend = mixture()
    net = Exact(backend)
    plain = wrapped(backend, lambda x, t: net(x, t, None), classes=None, null=None)
    x = Sampler(plain, solver=Euler(), num_inference_steps=3).sample(seeds=[0, 1]).x
    torch.testing.assert_close(x, Sampler(backend, num_inference_steps=3).sample(seeds=[0, 1]).x)
    check_backend(plain)
    with pytest.raises(ValueError, match=r"has no classes and cannot make 3\. .*classes=10"):
        Sampler(plain).sample(3)


TIMES = {
    "clock": ("clock", lambda clock: clock),
    "unit": ("unit", lambda clock: clock / 100),
    "noise at one": (lambda t: 1 - t / 99, lambda clock: 1 - clock / 99),
    "whole": (torch.Tensor.long, lambda clock: clock),
}


@pytest.mark.parametrize("name", TIMES)
def test_the_network_is_given_times_as_it_takes_them(name):
    time, expected = TIMES[name]
    seen = []

    def net(x, t):
        seen.append(t)
        return x

    schedule = SCHEDULES["discrete"]
    backend = wrap(net, shape=(1, 4, 4), schedule=schedule, prediction="v", time=time)
    sampler = Sampler(backend, num_inference_steps=4)
    sampler.sample()
    clock = torch.tensor(sampler.times[:-1])
    torch.testing.assert_close(torch.cat(seen).float(), expected(clock))
    assert {t.dtype for t in seen} == {torch.int64 if name == "whole" else torch.float32}


class Net(nn.Module):
    """A small trained-looking network with everything that modules have."""

    def __init__(self, channels=1):
        super().__init__()
        self.out = nn.Conv2d(1, channels, 3, padding=1)
        self.time = nn.Linear(1, 1)
        self.label = nn.Embedding(4, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, t, label):
        shift = self.time(t[:, None].to(x)) + self.label(label)
        return self.dropout(self.out(x) + shift[:, :, None, None])


def module(dtype=torch.float32, **options):
    torch.manual_seed(0)
    net = Net(2 if options.get("learns_variance") else 1).to(dtype).eval()
    given = {"shape": (1, 8, 8), "schedule": FlowSchedule(), "prediction": "flow"}
    return wrap(net, classes=3, null=3, **given, **options)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_a_module_says_where_and_in_what_it_computes(dtype, kept):
    backend = module(dtype)
    assert (backend.network_dtype, backend.dtype) == (dtype, kept)
    assert backend.device == torch.device("cpu")
    assert Sampler(backend, [CFG(2.0)], num_inference_steps=2).sample(1).x.dtype == kept
    check_backend(backend, [1], trained=False, tolerance=0.05)


def test_a_learned_variance_is_split_off():
    backend = module(learns_variance=True, solver=DDPM())
    request = Request(torch.randn(2, 1, 8, 8), 0.4, 1)
    with torch.no_grad():
        (output,) = evaluated(backend, [request])
        whole = backend.net(request.x, torch.full((2,), 0.4), torch.tensor([1, 1]))
    torch.testing.assert_close(torch.cat(output, 1), whole)
    assert Sampler(backend, num_inference_steps=2).sample(1).x.isfinite().all()


def test_a_network_of_diffusers_is_wrapped_as_it_is(tmp_path):
    own = load(write(tmp_path, num_class_embeds=5), unconditional_label=4)
    backend = wrap(
        own.unet,
        shape=own.shape,
        schedule=own.schedule,
        prediction=own.prediction,
        classes=4,
        null=4,
    )
    x, t = torch.randn(2, *own.shape), 300.0
    seen, right = (
        evaluated(b, [Request(x, t, c) for c in (3, UNCONDITIONAL)]) for b in (backend, own)
    )
    for a, b in zip(seen, right, strict=True):
        torch.testing.assert_close(a.prediction, b.prediction)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_it_is_copied_and_pickled(again):
    backend = module()
    x = Sampler(backend, num_inference_steps=2).sample(1).x
    assert torch.equal(Sampler(again(backend), num_inference_steps=2).sample(1).x, x)
    assert repr(backend).startswith("WrappedNetwork(net=Net, shape=(1, 8, 8), schedule=FlowSch")


def test_its_recipe_is_read_with_the_backend():
    backend = module()
    result = Sampler(backend, [CFG(2.0)], num_inference_steps=2).sample("1", seeds=[4])
    with pytest.raises(LookupError, match="'WrappedNetwork' is not registered"):
        Sampler.from_recipe(result.recipe)
    again = Sampler.from_recipe(result.recipe, backend=backend)
    assert torch.equal(again.sample(**composer.call_of(result.recipe)).x, result.x)


GIVEN = {"shape": (1, 8, 8), "schedule": FlowSchedule(), "prediction": "flow"}


@pytest.mark.parametrize(
    ("net", "options", "error", "sentence"),
    [
        (3, {}, TypeError, "wrap: net must be a network or a function, got 3"),
        (Net, {}, TypeError, "wrap: net must be a network or a function, got <class"),
        (Net(), {}, ValueError, r"wrap: net must be in evaluation mode, .* Call net\.eval\(\)"),
        (len, {"shape": (8, 8)}, TypeError, r"shape must be \(C, H, W\)"),
        (len, {"schedule": "flow"}, TypeError, "schedule must be a Schedule, got str"),
        (len, {"prediction": "eps"}, ValueError, "prediction must be one of"),
        (len, {"classes": 0}, ValueError, "wrap: classes must be an integer of at least 1"),
        (len, {"null": -1}, ValueError, "wrap: null must be an integer of at least 0"),
        (len, {"time": "seconds"}, ValueError, "wrap: time must be 'clock', 'unit' or a function"),
        (len, {"learns_variance": 1}, TypeError, "wrap: learns_variance must be True or False"),
        (
            len,
            {"device": "abacus"},
            ValueError,
            "device must be a name that torch knows, got 'abacus'",
        ),
        (len, {"dtype": "int8"}, ValueError, "dtype must be one of"),
    ],
)
def test_what_cannot_be_wrapped_is_one_sentence(net, options, error, sentence):
    with pytest.raises(error, match=sentence) as raised:
        wrap(net, **{**GIVEN, **options})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("bad", [4, -1, NONE, True, "six", 1.0])
def test_what_is_no_class(bad):
    with pytest.raises(ValueError, match=f"a condition must be a label from 0 to 3, got {bad!r}"):
        Sampler(wrapped(mixture())).sample(bad)


def test_a_null_among_the_labels_is_no_condition():
    backend = wrap(lambda x, t, label: x, classes=4, null=3, **GIVEN)
    with pytest.raises(ValueError, match="a label from 0 to 3 other than 3, got 3"):
        backend.encode(3)


def test_a_network_without_such_a_label_says_so():
    net = nn.Module()
    net.label = nn.Embedding(4, 1)
    backend = wrap(lambda x, t, label: x + net.label(label)[..., None, None], classes=4, **GIVEN)
    assert Sampler(backend, num_inference_steps=2).sample(1).x.isfinite().all()
    with pytest.raises(ValueError, match=r"failed with the label None .*wrap\(\.\.\., null=4\)"):
        Sampler(backend, [CFG(2.0)]).sample(1)


@pytest.mark.parametrize(
    ("out", "got"),
    [
        (lambda x: x[:, :, :4], r"\(1, 1, 4, 8\)"),
        (lambda x: x.repeat(1, 2, 1, 1), r"\(1, 2, 8, 8\)"),
        (str, "str"),
    ],
)
def test_what_the_network_returns_is_checked(out, got):
    backend = wrap(lambda x, t: out(x), **GIVEN)
    with pytest.raises(
        ValueError, match=rf"must return a tensor of shape \(1, 1, 8, 8\), got {got}"
    ):
        Sampler(backend).sample()


def test_a_network_may_declare_its_gradient():
    """The kit compares it with finite differences, and DPS steers through it."""
    torch.manual_seed(0)
    net = nn.Conv2d(1, 1, 3, padding=1).double().eval()

    def model(**options):
        smooth = lambda x, t: torch.tanh(net(x))  # noqa: E731
        path = {"schedule": FlowSchedule(), "prediction": "flow", "dtype": "float64"}
        return wrap(smooth, shape=(1, 8, 8), **path, **options)

    def brightness(x):
        return x.mean((1, 2, 3))

    check_backend(model(differentiable=True), trained=False)
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    made = Sampler(model(differentiable=True), [DPS(brightness)]).denoise(x, 0.5)
    assert not torch.equal(made.x0, Sampler(model()).denoise(x, 0.5).x0)
    with pytest.raises(ValueError, match="DPS: backend must be differentiable"):
        Sampler(model(), [DPS(brightness)])
