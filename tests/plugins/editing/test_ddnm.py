"""DDNM, and the operators whose null space it leaves to the model."""

import json
from dataclasses import dataclass
from itertools import permutations

import pytest
import torch
from conftest import mixture
from hypothesis import assume, given
from hypothesis import strategies as st

from composer import Sampler, hookimpl, installed
from composer.authoring import check_parts
from composer.predictions import PREDICTIONS
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDPM, Heun
from composer.testing import GaussianMixtureBackend, IdentityBackend, check_decomposition
from composer_plugins import (
    CFG,
    DDNM,
    Anagram,
    BlockMean,
    Cascade,
    Gray,
    KnownPixels,
    Particles,
    Stage,
)

IMAGE = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 8, 8)
HALF = torch.zeros(8, 8)
HALF[4:] = 1


def noise(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@st.composite
def measured(draw):
    """(operator, a random image (1, C, H, W) that it takes, the seed)."""
    seed, channels = draw(st.integers(0, 999)), draw(st.integers(1, 4))
    factor = draw(st.integers(1, 4))
    height, width = factor * draw(st.integers(1, 5)), factor * draw(st.integers(1, 5))
    operator = draw(
        st.sampled_from(
            [
                BlockMean(factor),
                Gray(channels),
                KnownPixels((noise((height, width), seed) > 0).float()),
            ]
        )
    )
    return operator, noise((1, channels, height, width), seed + 1), seed


@given(measured())
def test_pseudoinverses_keep_the_laws_of_penrose(case):
    """A A+ A = A, A+ A A+ = A+, and both products symmetric; the parts sum to the identity."""
    operator, x, seed = case
    y = operator.apply(x)
    torch.testing.assert_close(operator.apply(operator.pinv(y)), y)
    back = operator.pinv(noise(y.shape, seed))
    torch.testing.assert_close(operator.pinv(operator.apply(back)), back)
    other, z = noise(x.shape, seed + 2), noise(y.shape, seed + 3)
    seen = operator.pinv(y)
    torch.testing.assert_close((seen * other).sum(), (x * operator.parts[0](other)).sum())
    through = operator.apply(operator.pinv(z))
    torch.testing.assert_close((through * y).sum(), (z * operator.apply(seen)).sum())
    check_parts(operator, IdentityBackend(tuple(x.shape[1:])), "test", may_vanish=True)


def test_gray_keeps_the_contract_of_decompositions():
    check_decomposition(Gray(3))


@given(measured())
def test_the_projection_is_the_nearest_image_that_agrees(case):
    """It agrees, and the way to it is orthogonal to every image that A does not see."""
    operator, x, seed = case
    y = operator.apply(noise(x.shape, seed + 4))
    near = DDNM(y.clamp(-1, 1), operator).projected(x, y)
    torch.testing.assert_close(operator.apply(near), y)
    unseen = operator.parts[1](noise(x.shape, seed + 5))
    assert abs(float(((near - x) * unseen).sum())) < 1e-9


OPERATORS = [
    (KnownPixels(HALF), (1, 8, 8)),
    (BlockMean(4), (1, 8, 8)),
    (Gray(3), (3, 8, 8)),
]


@pytest.mark.parametrize("solver", [None, DDPM(), Heun()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("operator", "shape"), OPERATORS, ids=lambda v: type(v).__name__)
def test_the_result_has_the_measurement(operator, shape, solver):
    backend = mixture(shape=shape)
    y = operator.apply(backend.means[2:3])[0]
    result = Sampler(backend, [DDNM(y, operator), CFG(2.0)], solver, 6).sample(1, seeds=[0, 1])
    torch.testing.assert_close(operator.apply(result.x), y.expand(2, *y.shape))


def test_known_pixels_are_exact_and_cost_nothing():
    result = Sampler(mixture(), [DDNM(IMAGE, KnownPixels(HALF))], num_inference_steps=7).sample(1)
    assert torch.equal(result.x[..., :4, :], IMAGE[None, :, :4])
    assert result.stats.evaluated == result.stats.calls == 7


def test_independent_pixels_are_sampled_as_without_it():
    """Over one Gaussian the known half says nothing of the other, and does not disturb it."""
    backend = GaussianMixtureBackend(0.3 * noise((1, 1, 8, 8), 0), [0.4])
    plain = Sampler(backend).sample(seeds=range(3)).x
    x = Sampler(backend, [DDNM(IMAGE, KnownPixels(HALF))]).sample(seeds=range(3)).x
    torch.testing.assert_close(x[..., 4:, :], plain[..., 4:, :])


def test_every_prediction_type_gives_the_same_sample(schedule):
    """It leaves the law by working on x_0, which all types imply."""

    class Later:
        @hookimpl
        def start(self, state):
            state.times = [schedule.time_at(0.98), *state.times[1:]]

    samples = []
    for name in PREDICTIONS:
        backend = mixture(schedule, name)
        # At pure noise a prediction of the noise says nothing of x_0: start a little later.
        sampler = Sampler(backend, [Later(), DDNM(IMAGE, KnownPixels(HALF))], num_inference_steps=6)
        samples.append(sampler.sample(1).x)
    for x in samples[1:]:
        torch.testing.assert_close(x, samples[0], rtol=1e-6, atol=1e-6)


def test_it_is_outermost_wherever_it_stands():
    """The measurement is of the image itself, not of a view of it."""
    stack = [DDNM(IMAGE, KnownPixels(HALF)), Anagram({"identity": 1, "rotate_180": 2}), CFG(3.0)]
    samples = [
        Sampler(mixture(), order, num_inference_steps=5).sample().x for order in permutations(stack)
    ]
    for x in samples[1:]:
        torch.testing.assert_close(x, samples[0])


def test_half_of_a_known_image_finds_the_other_half():
    backend = mixture()
    y = backend.means[2]
    sampler = Sampler(backend, [DDNM(y, KnownPixels(HALF))], num_inference_steps=50)
    gap = (sampler.sample(seeds=range(8)).x - y)[..., 4:, :].flatten(1).pow(2).mean(1).sqrt()
    assert (gap < 2 * backend.stds[2]).float().mean() >= 0.75


def test_one_measurement_a_seed():
    ys = torch.stack([IMAGE, -IMAGE])
    sampler = Sampler(mixture(), [DDNM(ys, KnownPixels(HALF))], num_inference_steps=4)
    both = sampler.sample(1, seeds=[1, 2]).x
    alone = Sampler(mixture(), [DDNM(-IMAGE, KnownPixels(HALF))], num_inference_steps=4)
    torch.testing.assert_close(both[1:], alone.sample(1, seeds=[2]).x)
    with pytest.raises(ValueError, match="DDNM: 2 images for 3 seeds"):
        sampler.sample(1, seeds=[1, 2, 3])
    with pytest.raises(ValueError, match="must be 1 or one per image, got 2 for 3"):
        sampler.denoise(torch.zeros(3, 1, 8, 8), 0.5, 1)
    several = Particles(lambda x: x.flatten(1).sum(1), ((1, 2), (0, 1)))
    sampler = Sampler(mixture(), [several, DDNM(ys, KnownPixels(HALF))], num_inference_steps=4)
    with pytest.raises(ValueError, match="must be one for all seeds with several candidates"):
        sampler.sample(1, seeds=[1, 2])


@pytest.mark.parametrize(("operator", "shape"), OPERATORS, ids=lambda v: type(v).__name__)
def test_it_survives_a_recipe(operator, shape):
    backend = mixture(shape=shape)
    plugin = DDNM(operator.apply(backend.means[:1])[0], operator)
    again = decode(json.loads(json.dumps(encode(plugin, installed()))), installed())
    samples = [Sampler(backend, [p], num_inference_steps=3).sample(1).x for p in (plugin, again)]
    assert torch.equal(*samples)


@dataclass(frozen=True)
class Halved:
    """A pseudoinverse that is half of one."""

    def apply(self, x):
        return x

    def pinv(self, y):
        return y / 2


class Bent(Halved):
    def apply(self, x):
        return x.abs()

    def pinv(self, y):
        return y


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: DDNM(IMAGE, 4), TypeError, r"must have apply\(x\) and pinv\(y\), got 4"),
        (lambda: DDNM(IMAGE, BlockMean), TypeError, "must have apply"),
        (lambda: DDNM(3, BlockMean(2)), TypeError, "DDNM: measurement must be"),
        (lambda: DDNM(IMAGE, BlockMean(2)), ValueError, r"shape \(1, 4, 4\).*got \(1, 8, 8\)"),
        (lambda: DDNM(IMAGE, BlockMean(3)), ValueError, "multiples of 3, got 8x8"),
        (
            lambda: DDNM(IMAGE, KnownPixels(HALF[:1])),
            ValueError,
            "mask must be 8x8 as the image, got 1x8",
        ),
        (lambda: DDNM(IMAGE, Halved()), ValueError, "must be linear with a pseudoinverse"),
        (lambda: DDNM(IMAGE, Bent()), ValueError, "must be linear with a pseudoinverse"),
        (lambda: KnownPixels(HALF / 2), ValueError, "must be 0 or 1 everywhere"),
        (lambda: BlockMean(0), ValueError, "factor must be an integer of at least 1"),
        (
            lambda: DDNM(IMAGE, Gray(3)),
            ValueError,
            r"Gray: the image must have 3 channel\(s\), got 1",
        ),
        (lambda: Gray("3"), TypeError, "channels must be an integer"),
    ],
)
def test_bad_arguments_raise_before_any_model_call(make, error, sentence):
    with pytest.raises(error, match=sentence):
        Sampler(mixture(), [make()])


def test_two_raise():
    plugin = DDNM(IMAGE, KnownPixels(HALF))
    with pytest.raises(ValueError, match="two DDNM in one stack both project the clean image"):
        Sampler(mixture(), [plugin, DDNM(IMAGE, KnownPixels(1 - HALF))])


# Other sizes, as in a cascade.


@given(
    case=st.sampled_from(["known", "mean", "gray"]),
    side=st.integers(1, 4),
    shrink=st.sampled_from([1, 2, 3]),
    factor=st.sampled_from([1, 2, 3, 4]),
)
def test_a_shrunk_picture_has_the_measurement_of_its_size(case, side, shrink, factor):
    """What is measured of the means of pixels is what the operator makes of the measurement."""
    assume(case != "mean" or factor % shrink == 0 or shrink % factor == 0)  # or it is refused
    size = side * shrink * factor
    x = noise((2, 3, size, size), side).clamp(-1, 1)
    mask = (noise((size, size), side + 1) > 0.8).float()
    operator = {"known": KnownPixels(mask), "mean": BlockMean(factor), "gray": Gray(3)}[case]
    y = operator.apply(x)
    small = size // shrink
    other, measured = operator.at_size(y, small, small)
    shrunk = other.apply(torch.nn.functional.avg_pool2d(x, shrink))
    torch.testing.assert_close(other.apply(other.pinv(measured)), shrunk)


def test_a_measurement_at_its_own_size_is_left_as_it_is():
    plugin = DDNM(torch.zeros(1, 4, 4), BlockMean(2))
    assert plugin.resized(8, 8) is plugin
    larger = plugin.resized(32, 32)
    assert larger.operator == BlockMean(8)
    assert larger.measurement.shape == (1, 1, 4, 4)
    coarser = plugin.resized(2, 2)
    assert coarser.operator == BlockMean(1)
    assert coarser.measurement.shape == (1, 1, 2, 2)


def test_a_cascade_keeps_the_measurement_in_every_stage():
    small, large = mixture(shape=(1, 8, 8)), mixture(shape=(1, 16, 16))
    y = BlockMean(4).apply(large.means[2:3])[0]
    stages = [Stage(small), Stage(large, enlarge=lambda x: CFG(1.0))]
    for result in Cascade(stages, [DDNM(y, BlockMean(4))]).sample(1, seeds=[0, 1]):
        means = torch.nn.functional.adaptive_avg_pool2d(result.x, 4)
        torch.testing.assert_close(means, y.expand(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("plugin", "size", "sentence"),
    [
        (
            DDNM(torch.zeros(1, 4, 4), BlockMean(2)),
            (6, 6),
            "multiple or a divisor of 4x4 blocks, got 6x6",
        ),
        (
            DDNM(torch.zeros(1, 4, 4), BlockMean(2)),
            (16, 8),
            "multiple or a divisor of 4x4 blocks, got 16x8",
        ),
        (DDNM(torch.zeros(1, 4, 4), BlockMean(2)), (2, 1), "must have the proportions of 2x1"),
        (DDNM(IMAGE, KnownPixels(HALF)), (4, 8), "KnownPixels: mask must have the proportions"),
        (DDNM(IMAGE, Halved()), (4, 4), "at_size to measure at 4x4, got .*Define at_size"),
    ],
)
def test_sizes_that_cannot_be_measured(plugin, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        plugin.resized(*size)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
def test_where_there_is_no_noise_the_image_itself_is_projected(kind, schedule):
    """denoise at the clean image's time: nothing is divided by the noise that is not there."""
    mask = torch.eye(8)
    x, y = torch.rand(2, 1, 1, 8, 8, dtype=torch.float64)
    sampler = Sampler(mixture(schedule, kind), [DDNM(y[0], KnownPixels(mask))])
    estimate = sampler.denoise(x, schedule.time_at(0.0), 1)
    torch.testing.assert_close(estimate.x0, torch.where(mask == 1, x, y))
    assert estimate.noise.isfinite().all()
