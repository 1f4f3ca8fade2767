"""Steer and DPS against posteriors in closed form, the mixture's covariance, and FlowChef."""

import math

import pytest
import torch
from cascades import resembling
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import composer
from composer import UNCONDITIONAL, Request, Sampler, State, hookimpl
from composer.driver import resolve
from composer.model import Model
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDPM, Euler, Heun
from composer.stats import Stats
from composer.testing import GaussianMixtureBackend
from composer.testing.reads import Reads
from composer_plugins import (
    CFG,
    DPS,
    AdaptiveGuidance,
    Anagram,
    BlockMean,
    Cascade,
    KnownPixels,
    Particles,
    ReusedGuidance,
    SquaredError,
    Stage,
    Steer,
    SuperDiff,
    WithWeak,
)

STD, NOISE = 0.5, 0.25
SHAPE = (1, 4, 4)


def brightness(x):
    return x.sum((1, 2, 3))


def images(seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64) * 2 - 1


def gaussian(mean, std=STD, **options):
    return GaussianMixtureBackend(mean, [std], **options)


@pytest.mark.parametrize("iterations", [2, 5])
@pytest.mark.parametrize("solver", [Euler(), Heun(), DDPM()])
def test_a_measured_gaussian_has_its_exact_posterior(schedule, solver, iterations):
    """N(mu, S^2 I) measured as y = x + noise is a Gaussian again; sampling it directly, from the
    same noise, gives the same images."""
    mean, y = images(1), images(2)
    narrow = 1 / (1 / STD**2 + 1 / NOISE**2)
    posterior = narrow * (mean / STD**2 + y / NOISE**2)
    steer = Steer(SquaredError(y[0], std=NOISE), iterations=iterations)
    ours = Sampler(gaussian(mean, schedule=schedule), [steer], solver, 6).sample(seeds=[0, 1]).x
    direct = gaussian(posterior, 1.0, schedule=schedule)
    direct = _of_variance(direct, narrow)
    theirs = Sampler(direct, [], solver, 6).sample(seeds=[0, 1]).x
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def _of_variance(backend, variance):
    """The same Gaussian with a variance that is no float32, in which the backend holds it."""

    class Exact:
        def __getattr__(self, name):
            return getattr(backend, name)

        def evaluate(self, batch):
            outputs = []
            for x, t in zip(batch.x.split(1), batch.times, strict=True):
                alpha, sigma = backend.schedule.at(t)
                gain = alpha * variance / (alpha**2 * variance + sigma**2)
                x0 = backend.means + gain * (x - alpha * backend.means)
                noise = (x - alpha * x0) / sigma
                outputs.append(backend.prediction.target(x0, noise, alpha, sigma))
            return composer.Output(torch.cat(outputs))

    return Exact()


@pytest.mark.parametrize("operator", [BlockMean(2), KnownPixels(torch.eye(4))])
def test_the_minimum_is_the_exact_mean_given_a_linear_measurement(operator):
    """x0 - r^2 A' (s^2 + r^2 A A')^-1 (A x0 - y) by a dense solve."""
    x0, y = images(3, 2), operator.apply(images(4))
    spread = 0.1
    matrix = operator.apply(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).flatten(1).T
    inverse = torch.linalg.inv(
        NOISE**2 * torch.eye(len(matrix), dtype=torch.float64) + spread * matrix @ matrix.T
    )
    off = x0.flatten(1) @ matrix.T - y.flatten(1)
    exact = x0.flatten(1) - spread * off @ inverse @ matrix
    for iterations in (2, 4):
        steer = Steer(SquaredError(y[0], operator, NOISE), iterations=iterations)
        torch.testing.assert_close(steer.minimum(x0, spread).flatten(1), exact)
    one = Steer(SquaredError(y[0], operator, NOISE), iterations=1).minimum(x0, spread)
    torch.testing.assert_close(one.flatten(1), x0.flatten(1) - spread * off @ matrix / NOISE**2)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.floats(0.1, 20.0))
def test_more_iterations_come_nearer_to_the_minimum(seed, strength):
    """Of a loss whose curvature differs between pixels: the gradient of the sum vanishes."""
    scales = images(seed).abs() * 10

    def loss(x):
        return (scales * x.square()).sum((1, 2, 3))

    x0, spread = images(seed + 1), 0.2
    exact = x0 / (1 + 2 * spread * strength * scales)
    gaps = [
        float((Steer(loss, strength, iterations=n).minimum(x0, spread) - exact).norm())
        for n in (1, 200)
    ]
    assert gaps[1] < 1e-4
    assert gaps[0] > 10 * gaps[1]


def test_one_iteration_is_flow_chef():
    """The paper's loop written out: x <- x - size * grad loss(x0), then the step of the old v."""
    backend, target, strength = mixture(shape=SHAPE), images(7), 0.7

    def loss(x):
        return (x - target).square().sum((1, 2, 3)) / 2

    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ours = Sampler(backend, [Steer(loss, strength, iterations=1)], None, 8).sample(1, [5]).x
    for k in range(8):
        t, s = k / 8, (k + 1) / 8
        v = Sampler(backend).denoise(x, t, 1).prediction
        clean = x + (1 - t) * v
        spread = ((1 - t) * 0.5) ** 2 / ((t * 0.5) ** 2 + (1 - t) ** 2)
        size = strength * spread * (s - t) / (1 - t)
        x = x + (s - t) * v - size * (clean - target)
    torch.testing.assert_close(ours, x)


def covariance(backend, x, t):
    """Cov[x_0 | x] (n, n) of the mixture, in closed form, for one image."""
    alpha, sigma = backend.schedule.at(t)
    weights, means, covariances = [], [], []
    stds = torch.tensor(backend.stds).tolist()  # as the backend rounds them
    for mean, std in zip(backend.means.flatten(1), stds, strict=True):
        variance = alpha**2 * std**2 + sigma**2
        gap = x.flatten() - alpha * mean
        weights.append(-len(gap) / 2 * math.log(variance) - float(gap @ gap) / (2 * variance))
        means.append(mean + alpha * std**2 / variance * gap)
        covariances.append(std**2 * sigma**2 / variance)
    shares = torch.tensor(weights, dtype=torch.float64).softmax(0)
    means = torch.stack(means)
    centred = means - shares @ means
    within = (shares * torch.tensor(covariances, dtype=torch.float64)).sum()
    return within * torch.eye(means.shape[1], dtype=torch.float64) + (centred.T * shares) @ centred


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v", "sample"])
def test_dps_moves_the_clean_image_by_the_posterior_covariance(schedule, prediction):
    """-strength * Cov[x_0 | x] grad loss, over a mixture whose components are near: the direction
    of the posterior mean, which no multiple of the loss's own gradient has."""
    means = 0.3 * images(8, 3)
    backend = GaussianMixtureBackend(means, [0.1, 0.2, 0.3], None, schedule, prediction)
    t = schedule.time_at(0.6)
    x = schedule.add_noise(images(9), images(10), t)
    direction = images(11)

    def loss(x):
        return (direction * x).sum((1, 2, 3)) + x[:, 0, 0, 0].square()

    plain = Sampler(backend).denoise(x, t, UNCONDITIONAL).x0
    steered = Sampler(backend, [DPS(loss, 0.4)]).denoise(x, t, UNCONDITIONAL).x0
    gradient = direction.clone()
    gradient[:, 0, 0, 0] += 2 * plain[:, 0, 0, 0]
    expected = -0.4 * covariance(backend, x, t) @ gradient.flatten()
    torch.testing.assert_close((steered - plain).flatten(), expected, rtol=1e-6, atol=1e-9)
    along = torch.cosine_similarity(expected, gradient.flatten(), 0)
    assert along > -0.9999


@pytest.mark.parametrize("clock", [FlowSchedule(), DiscreteSchedule.linear()])
def test_over_one_gaussian_dps_is_one_iteration_of_steer(clock):
    backend = gaussian(images(1), schedule=clock)
    loss = SquaredError(BlockMean(2).apply(images(2))[0], BlockMean(2), 1.0)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    for level in (0.9, 0.5, 0.1):
        t = clock.time_at(level)
        through = Sampler(backend, [DPS(loss)]).denoise(x, t, 0).x0
        beside = Sampler(backend, [Steer(loss, iterations=1)]).denoise(x, t, 0).x0
        torch.testing.assert_close(through, beside)


@pytest.mark.parametrize("plugins", [[], [CFG(3.0)], [Anagram({"flip": 1, "rotate_180": 2})]])
def test_the_gradient_goes_through_the_whole_stack(plugins):
    """Against central differences of the stack's own clean image, in float64."""
    backend, t = mixture(shape=SHAPE), 0.4
    condition = None if plugins and isinstance(plugins[0], Anagram) else 1
    x = FlowSchedule().add_noise(images(12), images(13), t)

    def loss(x):
        return torch.tanh(x).sum((1, 2, 3))

    plain = Sampler(backend, plugins)
    steered = Sampler(backend, [DPS(loss, 0.5, "flip"), *plugins]).denoise(x, t, condition)
    _, sigma = backend.schedule.at(t)
    gradient = (steered.noise - plain.denoise(x, t, condition).noise) / (0.5 * sigma)
    step = 1e-5
    for pixel in (0, 5, 15):
        moved = torch.zeros(16, dtype=torch.float64)
        moved[pixel] = step
        moved = moved.reshape(1, *SHAPE)
        up, down = (loss(plain.denoise(x + d, t, condition).x0.flip(-2)) for d in (moved, -moved))
        assert float(gradient.flatten()[pixel]) == pytest.approx(
            float((up - down) / (2 * step)), abs=1e-7
        )


def test_a_run_keeps_no_gradient_and_other_rows_have_none():
    """Estimates, x and what is carried; the model computes rows outside DPS without a graph."""
    seen = []

    class Watch:
        @hookimpl
        def post_step(self, state: State):
            seen.append((state.x, state.estimate.prediction, state.estimate.x0, state.estimate.x))
            seen.append([tensor for place in state.carried.values() for tensor in _tensors(place)])

    def _tensors(place):
        return place.x, place.x0, place.log_density

    stack = [Watch(), DPS(brightness, 0.01), SuperDiff([0, 1])]
    result = Sampler(mixture(), stack, DDPM(), 3).sample(seeds=[0, 1])
    assert len(seen) == 6
    assert seen[1]  # what SuperDiff carries
    assert not any(tensor.requires_grad for tensors in seen for tensor in tensors)
    assert not result.x.requires_grad
    assert result.stats.calls == 3

    model = Model(mixture(), None, Stats())
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    asked = [Request(one, 0.5, 1, schedule=FlowSchedule()) for one in (x, leaf)]
    plain, tracked = model(asked)
    assert not plain.prediction.requires_grad
    assert tracked.prediction.requires_grad


@pytest.mark.parametrize(
    ("inner", "solver", "condition"),
    [
        (SuperDiff([0, 1], "or", priors=(1, 3)), DDPM(), None),
        (ReusedGuidance(3.0), None, 1),
        (AdaptiveGuidance(3.0, 0.0), None, 1),
    ],
)
def test_plugins_inside_dps_keep_what_they_carry(inner, solver, condition):
    """A loss without a slope changes neither the image nor the rows."""
    made = [
        Sampler(mixture(), [*outer, inner], solver, 4).sample(condition, seeds=[0, 1])
        for outer in ([], [DPS(lambda x: 0 * brightness(x))])
    ]
    torch.testing.assert_close(made[1].x, made[0].x)
    assert made[1].stats.rows == made[0].stats.rows


def test_the_gradient_through_steer_is_finite_where_nothing_moves():
    """There the length of its later steps is 0 / 0."""
    still = Steer(lambda x: 0 * brightness(x))
    through, plain = (
        Sampler(mixture(), [DPS(brightness, 0.1), *inner], None, 4).sample(1).x
        for inner in ([still], [])
    )
    torch.testing.assert_close(through, plain)


def test_each_view_may_be_steered_through_the_network():
    """The rows of both views are one call, whose graph both gradients need."""
    views = Anagram({"identity": 0, "flip": 1})
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    steered = Sampler(mixture(), [views, DPS(brightness, 0.3)]).denoise(x, 0.4)
    alone = Sampler(mixture(), [DPS(brightness, 0.3)])
    one, other = alone.denoise(x, 0.4, 0), alone.denoise(x.flip(-2), 0.4, 1)
    torch.testing.assert_close(steered.x0, (one.x0 + other.x0.flip(-2)) / 2)


@pytest.mark.parametrize("plugin", [Steer, DPS])
def test_a_view_is_the_loss_of_the_view(plugin):
    backend, scales = mixture(), torch.rand(8, 8, dtype=torch.float64)

    def loss(x):
        return (scales * x.square()).sum((1, 2, 3))

    def turned(x):
        return loss(x.flip(-1, -2))

    one = Sampler(backend, [plugin(loss, 0.3, "rotate_180")], None, 4).sample(1).x
    other = Sampler(backend, [plugin(turned, 0.3)], None, 4).sample(1).x
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, Sampler(backend, [plugin(loss, 0.3)], None, 4).sample(1).x)


@pytest.mark.parametrize("plugin", [Steer, DPS])
def test_strength_and_interval_leave_the_rest_as_it_is(plugin):
    backend = mixture()
    plain = Sampler(backend, [CFG(2.0)], None, 5).sample(1)
    none = Sampler(backend, [plugin(brightness, 0.0), CFG(2.0)], None, 5).sample(1)
    outside = plugin(brightness, 1.0, interval=(0.001, 0.002))
    assert torch.equal(none.x, plain.x)
    assert torch.equal(Sampler(backend, [outside, CFG(2.0)], None, 5).sample(1).x, plain.x)
    steered = Sampler(backend, [plugin(brightness, 0.02), CFG(2.0)], None, 5).sample(1)
    assert float((steered.x - plain.x).sum()) < -0.01  # darker
    assert (steered.stats.calls, steered.stats.rows) == (plain.stats.calls, plain.stats.rows)


@settings(max_examples=6)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=3, unique=True),
    st.sampled_from([Steer, DPS]),
)
def test_steered_images_depend_on_their_own_seed_alone(seeds, plugin):
    stack = [
        Particles(brightness, ((1, 2), (0, 1))),
        plugin(lambda x: x.square().sum((1, 2, 3)), 0.1),
    ]
    sampler = Sampler(mixture(), stack, None, 4)
    together = sampler.sample(1, seeds).x
    alone = torch.cat([sampler.sample(1, [seed]).x for seed in seeds])
    torch.testing.assert_close(together, alone)


def test_steering_nests_at_pure_noise_and_over_all_predictions():
    """In one view only, where it must keep the kind of the estimate, also at alpha = 0."""
    samples = []
    for prediction in ("flow", "sample"):
        views = Anagram({"identity": Steered([Steer(brightness, 0.1)], 0), "flip": 1})
        samples.append(Sampler(mixture(prediction=prediction), [views], None, 4).sample().x)
    torch.testing.assert_close(*samples)


class Steered:
    """A plugin in place of a condition, around a condition."""

    def __init__(self, plugins, condition):
        self.plugins, self.condition = plugins, condition
        self.conditions = (condition,)

    @hookimpl
    def noise_estimate(self, request):
        inner = request.fill(self.condition).replace(through=tuple(self.plugins))
        return (yield [inner])[0]


def test_a_backend_without_a_gradient_raises():
    class Opaque:
        differentiable = False

        def __init__(self, backend):
            self._backend = backend

        def __getattr__(self, name):
            return getattr(self._backend, name)

        def evaluate(self, batch):
            with torch.no_grad():
                return self._backend.evaluate(batch)

    with pytest.raises(ValueError, match="DPS: backend must be differentiable"):
        Sampler(Opaque(mixture()), [DPS(brightness)])
    assert WithWeak(mixture(), mixture()).differentiable


def test_a_measurement_is_of_the_same_image_at_every_size_of_a_cascade():
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    large = F.interpolate(x, scale_factor=2.0)
    y = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(1, 2, 2)
    for operator, measured in ((BlockMean(4), y), (Total(), y.mean((1, 2), keepdim=True))):
        loss = SquaredError(measured, operator)
        small = Steer(loss).resized(4, 4).loss
        torch.testing.assert_close(small(x), loss(large))
    whole = SquaredError(F.interpolate(y[None], scale_factor=4.0)[0])
    torch.testing.assert_close(whole.resized(4, 4)(x), whole(large) / 4)
    backends = [mixture(shape=(1, size, size)) for size in (4, 8)]
    stages = [Stage(b, num_inference_steps=2, enlarge=resembling) for b in backends]
    made = Cascade(stages, [Steer(SquaredError(y, BlockMean(4)))]).sample(1)
    assert [result.x.shape[-1] for result in made] == [4, 8]


class Total:
    """The mean of an image, at any size."""

    def apply(self, x):
        return x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("plugin", [Steer, DPS])
@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        ("dark", TypeError, "loss must be a function"),
        (lambda x: x, ValueError, "one number per image, of shape"),
        (lambda x: x.sum(), ValueError, "one number per image, of shape"),
        (lambda x: x.detach().sum((1, 2, 3)), ValueError, "loss must have a gradient"),
        (lambda x: x.view(3, 7), ValueError, "loss failed on images of"),
    ],
)
def test_bad_losses_raise_before_any_call(plugin, loss, error, words):
    with pytest.raises(error, match=words):
        Sampler(mixture(), [plugin(loss)])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Steer(brightness, math.inf), "Steer: strength must be finite"),
        (lambda: Steer(brightness, iterations=0), "iterations must be an integer of at least 1"),
        (lambda: Steer(brightness, interval=(0.5, 0.1)), "Steer: interval"),
        (lambda: Steer(brightness, data_std=0), "data_std must be a positive"),
        (lambda: DPS(brightness, math.nan), "DPS: strength must be finite"),
        (lambda: DPS(brightness, interval=(0.5, 0.1)), "DPS: interval"),
        (lambda: SquaredError(torch.zeros(1, 8, 8), std=0.0), "std must be a positive"),
        (lambda: SquaredError(torch.zeros(1, 8, 8))(torch.zeros(1, 1, 4, 4)), "of the shape"),
    ],
)
def test_bad_steering_raises(made, words):
    with pytest.raises(ValueError, match=words):
        made()
    with pytest.raises(TypeError, match="operator must have apply"):
        SquaredError(torch.zeros(1, 8, 8), 3)


def test_named_losses_are_written_into_recipes():
    backend = composer.load_backend("mnist")
    loss = SquaredError(torch.zeros(1, 7, 7), BlockMean(4), 0.3)
    result = Sampler(backend, [Steer(loss), DPS(loss, 0.01), CFG(2.0)], None, 2).sample(7)
    again = Sampler.from_recipe(result.recipe).sample(7).x
    assert torch.equal(again, result.x)
    function = Sampler(backend, [Steer(brightness)], None, 2).sample(7).recipe
    assert function["plugins"][0]["options"]["loss"] == {"unregistered": "function"}


@pytest.mark.parametrize("plugin", [Steer, DPS])
def test_steering_reads_nothing_back(plugin):
    sampler = Sampler(mixture(), [plugin(brightness, 0.1)], None, 4)
    with Reads() as reads:
        for _ in sampler.stream(1, [0]):
            pass
    assert reads.total <= 1  # at the end of the run


def test_resolve_runs_inner_plugins_with_a_gradient_only_where_one_is_wanted():
    modes = []

    class Watch:
        @hookimpl
        def noise_estimate(self, request):
            modes.append(torch.is_grad_enabled())
            estimates = yield [request]
            modes.append(torch.is_grad_enabled())
            return estimates[0]

    model, x = Model(mixture(), None, Stats()), torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    for wanted in (False, True):
        request = Request(x.clone().requires_grad_(wanted), 0.5, 1, schedule=FlowSchedule())
        with torch.no_grad():  # as a run is
            resolve(request, [Watch().noise_estimate], model)
            assert not torch.is_grad_enabled()
        assert modes == [wanted, wanted]
        modes.clear()


@pytest.mark.parametrize("plugin", [DPS(brightness, 0.3), Steer(brightness, 0.3)])
def test_a_request_outside_of_a_run_has_pixels(plugin):
    """It has no backend, which would decode latents."""
    backend = mixture()
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    request = Request(x, 0.5, 1, schedule=backend.schedule)
    found = resolve(request, (plugin.noise_estimate,), Model(backend, None, Stats()))
    expected = Sampler(backend, [plugin]).denoise(x, 0.5, 1)
    torch.testing.assert_close(found.prediction, expected.prediction)
