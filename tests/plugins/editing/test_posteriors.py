"""DiffPIR and DAPS: the posterior of a Gaussian in closed form, and nonlinear measurements."""

import math

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from composer import Sampler
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import GaussianMixtureBackend
from composer_plugins import (
    CFG,
    DAPS,
    DDNM,
    AdamsBashforth,
    Anagram,
    BlockMean,
    DiffPIR,
    Gray,
    KnownPixels,
    Langevin,
    SDEdit,
)
from composer_plugins.editing.measurements import explained, spread_at

MEAN, STD, NOISE, Y = 0.2, 0.4, 0.1, 0.9
HALF = torch.zeros(8, 8)
HALF[4:] = 1
RARE = 1e-6


def gaussian(schedule):
    """Images of 2 x 2 independent pixels."""
    means = torch.full((1, 1, 2, 2), MEAN, dtype=torch.float64)
    return GaussianMixtureBackend(means, [STD], schedule=schedule)


def p_value(x, mean, std):
    """Of the hypothesis x ~ N(mean, std^2), corrected for three tests."""
    x = x.flatten().numpy()
    place = 2 * stats.norm.sf(abs(x.mean() - mean) / std * len(x) ** 0.5)
    ratio, statistic = stats.chi2(len(x) - 1), (len(x) - 1) * x.var(ddof=1) / std**2
    width = 2 * min(ratio.sf(statistic), ratio.cdf(statistic))
    return 3 * min(place, width, stats.kstest(x, stats.norm(mean, std).cdf).pvalue)


PRECISION = 4 / STD**2 + 1 / NOISE**2
POSTERIOR = (4 * MEAN / STD**2 + Y / NOISE**2) / PRECISION, PRECISION**-0.5
"""Mean and width of the mean of four pixels."""
MEASURED = torch.tensor([[[Y]]], dtype=torch.float64)
PLUGINS = {
    "DiffPIR": DiffPIR(MEASURED, BlockMean(2), NOISE, spread=STD),
    "DAPS": DAPS(MEASURED, BlockMean(2), NOISE, STD),
}


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()], ids=str)
def test_they_sample_the_posterior_of_a_gaussian(name, schedule):
    """The mean m of the four pixels is N(MEAN, STD^2 / 4), and y = m + noise. Differences of pixels
    are not measured and keep their width. False failures: RARE for each of two tests."""
    sampler = Sampler(gaussian(schedule), [PLUGINS[name]], AdamsBashforth(3), 80)
    x = sampler.sample(seeds=range(800)).x
    assert p_value(x.mean((1, 2, 3)), *POSTERIOR) > RARE
    assert p_value(x[:, 0, 0, 0] - x[:, 0, 0, 1], 0, STD * 2**0.5) > RARE


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_daps_needs_no_more_steps_over_a_gaussian(steps):
    """Each draw is exact, so few steps sample the posterior too, in which an error of one draw is
    large. False failures: RARE for each of two tests."""
    x = Sampler(gaussian(FlowSchedule()), [PLUGINS["DAPS"]], None, steps).sample(seeds=range(800)).x
    assert p_value(x.mean((1, 2, 3)), *POSTERIOR) > RARE
    assert p_value(x[:, 0, 0, 0] - x[:, 0, 0, 1], 0, STD * 2**0.5) > RARE


def test_that_test_sees_the_rule_without_the_spread():
    """The paper's r = sigma / alpha trusts the measurement too much."""
    rough = DiffPIR(MEASURED, BlockMean(2), NOISE)
    x = (
        Sampler(gaussian(FlowSchedule()), [rough], num_inference_steps=50)
        .sample(seeds=range(1500))
        .x
    )
    assert p_value(x.mean((1, 2, 3)), *POSTERIOR) < RARE


def test_the_estimate_is_the_posterior_mean():
    """E[x_0 | x_t, y] of a pixel that is measured, and of one that is not."""
    backend = GaussianMixtureBackend(torch.full((1, 1, 8, 8), MEAN, dtype=torch.float64), [STD])
    x, t = torch.randn(2, 1, 8, 8, dtype=torch.float64), 0.3
    y = torch.full((1, 8, 8), Y, dtype=torch.float64)
    plugin = DiffPIR(y * (1 - HALF), KnownPixels(HALF), NOISE, spread=STD)
    x0 = Sampler(backend, [plugin]).denoise(x, t).x0
    told = t * x / 0.7**2 + MEAN / STD**2
    precision = t**2 / 0.7**2 + 1 / STD**2
    torch.testing.assert_close(x0[..., 4:, :], (told / precision)[..., 4:, :])
    both = (told + Y / NOISE**2) / (precision + 1 / NOISE**2)
    torch.testing.assert_close(x0[..., :4, :], both[..., :4, :])


@pytest.mark.parametrize("operator", [KnownPixels(HALF), BlockMean(4)], ids=repr)
def test_without_noise_diffpir_is_ddnm(operator):
    backend = mixture()
    y = operator.apply(backend.means[2:3])
    samples = [
        Sampler(backend, [plugin, CFG(2.0)], num_inference_steps=6).sample(1, seeds=[0, 1]).x
        for plugin in (DDNM(y, operator), DiffPIR(y, operator, 0.0))
    ]
    torch.testing.assert_close(samples[0], samples[1])


@settings(max_examples=25)
@given(st.integers(0, 999), st.floats(0.01, 10.0))
def test_the_minimum_solves_the_normal_equations(seed, ratio):
    """For a random matrix, image by image: (A^T A + ratio) x = A^T y + ratio x_0."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    x0 = torch.randn(3, 1, 3, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    found = explained(x0, y, lambda x: x.flatten(1) @ a.T, ratio, 1).flatten(1)
    left = a.T @ a + ratio * torch.eye(12, dtype=torch.float64)
    right = y @ a + ratio * x0.flatten(1)
    torch.testing.assert_close(found, torch.linalg.solve(left, right.T).T, rtol=1e-6, atol=1e-7)


def test_rounds_find_the_minimum_of_a_nonlinear_measurement():
    """Of one unknown: |y - x^3|^2 + ratio (x - x_0)^2, by a search over a fine grid."""
    x0, y, ratio = torch.full((1, 1, 1, 1), 0.9, dtype=torch.float64), 0.3, 0.2
    found = explained(x0, torch.full((1, 1, 1, 1), y).double(), lambda x: x**3, ratio, 12)
    grid = torch.linspace(-2, 2, 400_001, dtype=torch.float64)
    best = grid[((y - grid**3) ** 2 + ratio * (grid - 0.9) ** 2).argmin()]
    assert abs(float(found) - float(best)) < 2e-5


@pytest.mark.parametrize("make", [DiffPIR, DAPS])
def test_a_nonlinear_measurement_tells_images_apart(make):
    """Half of an image, saturated: the component is found, whose other half was never seen."""
    backend = mixture()

    def saturated(x):
        return torch.tanh(3 * x[..., :4, :])

    y = saturated(backend.means[2:3])
    plugin = make(y, saturated, 0.1, spread=0.5, rounds=3)
    x = Sampler(backend, [plugin], num_inference_steps=20).sample(seeds=range(4)).x
    distances = (x[:, None] - backend.means).flatten(2).norm(dim=2)
    assert (distances.argmin(1) == 2).all()
    assert (saturated(x) - y).abs().mean() < 0.15


def test_renewed_noise_has_the_width_of_the_level():
    """With renewal 1 nothing of the old noise stays: over a point, x is alpha x_0 + sigma noise."""
    point = GaussianMixtureBackend(torch.zeros(1, 1, 8, 8, dtype=torch.float64), [1e-3])
    y = torch.zeros(1, 8, 8, dtype=torch.float64)
    plugin = DiffPIR(y, KnownPixels(torch.zeros(8, 8)), 0.1, renewal=1.0)
    states = [*Sampler(point, [plugin], num_inference_steps=4).stream(seeds=range(40))]
    width = float(states[1].x.std())
    assert width == pytest.approx(0.5, abs=5 * 0.5 / (2 * 40 * 64) ** 0.5)
    assert abs(float((states[0].x * states[1].x).mean())) < 5 * 0.75 * 0.5 / (40 * 64) ** 0.5


def test_every_prediction_type_gives_the_same_sample(schedule):
    y = torch.zeros(1, 2, 2, dtype=torch.float64)
    for make in (DiffPIR, DAPS):
        xs = []
        for kind in PREDICTIONS:
            start = SDEdit(torch.zeros(1, 8, 8, dtype=torch.float64), i_start=1)
            plugins = [start, make(y, BlockMean(4))]
            xs.append(Sampler(mixture(schedule, kind), plugins, None, 6).sample(1).x)
        for x in xs[1:]:
            torch.testing.assert_close(x, xs[0], rtol=1e-6, atol=1e-6)


def test_images_are_independent_and_have_their_own_measurements():
    backend = mixture(shape=(3, 8, 8))
    ys = Gray(3).apply(backend.means[:2])
    for make in (DiffPIR, DAPS):
        both = Sampler(backend, [make(ys, Gray(3))], num_inference_steps=5).sample(seeds=[0, 1]).x
        alone = Sampler(backend, [make(ys[1:], Gray(3))], num_inference_steps=5).sample(seeds=[1]).x
        torch.testing.assert_close(both[1:], alone)


def test_rows_views_and_walks():
    y = torch.zeros(1, 2, 2, dtype=torch.float64)
    views = Anagram({"identity": 0, "rotate_180": 1})
    for plugin, rows in (
        (DiffPIR(y, BlockMean(4), renewal=0.5), 2),
        (DAPS(y, BlockMean(4), ode_steps=3), 6),
    ):
        result = Sampler(mixture(), [views, plugin], num_inference_steps=4).sample()
        assert result.stats.evaluated == 4 * rows
    for plugin in (DiffPIR(y, BlockMean(4), renewal=0.5), DAPS(y, BlockMean(4))):
        walked = Sampler(mixture(), [plugin, Langevin(1)], num_inference_steps=4).sample(1)
        assert walked.x.isfinite().all()


def test_the_spread_given_x():
    schedule = FlowSchedule()
    assert spread_at(schedule, 0.25, math.inf) == pytest.approx(3.0)
    assert spread_at(schedule, 0.25, 0.5) == pytest.approx((1 / 9 + 4) ** -0.5)
    assert spread_at(schedule, 0.0, 0.5) == 0.5
    assert spread_at(schedule, 0.0, math.inf) == math.inf


@pytest.mark.parametrize("make", [DiffPIR, DAPS])
def test_impossible_arguments_raise(make):
    y, name = torch.zeros(1, 2, 2), make.__name__
    with pytest.raises(ValueError, match=f"{name}: noise"):
        make(y, BlockMean(4), -0.1)
    with pytest.raises(ValueError, match=f"{name}: spread"):
        make(y, BlockMean(4), spread=-1.0)
    with pytest.raises(ValueError, match=f"{name}: rounds"):
        make(y, BlockMean(4), rounds=0)
    with pytest.raises(ValueError, match=f"{name}: measurement must have the shape"):
        Sampler(mixture(), [make(torch.zeros(1, 3, 3), BlockMean(4))])
    with pytest.raises(ValueError, match=f"{name}: .* failed on images"):
        Sampler(mixture(), [make(y, lambda x: x @ torch.zeros(3, 3))])
    with pytest.raises(ValueError, match=f"{name}: operator must have at_size"):
        make(y, lambda x: x[..., :2, :2]).resized(4, 4)


@pytest.mark.parametrize("plugin", [DAPS, DiffPIR])
@pytest.mark.parametrize("operator", [None, "blur", BlockMean])
def test_an_operator_that_measures_nothing_raises(plugin, operator):
    with pytest.raises(TypeError, match=f"{plugin.__name__}: operator must be a function of im"):
        plugin(torch.zeros(1, 4, 4), operator)


@pytest.mark.parametrize("spread", [None, "x", [], 10**400])
def test_a_spread_must_be_a_number(spread):
    with pytest.raises((TypeError, ValueError), match="DiffPIR: spread must be"):
        DiffPIR(torch.zeros(1, 4, 4), BlockMean(2), spread=spread)


@pytest.mark.parametrize("plugin", [DAPS, DiffPIR])
def test_rounds_are_bounded(plugin):
    with pytest.raises(ValueError, match="rounds must be an integer of at most 1000"):
        plugin(torch.zeros(1, 4, 4), BlockMean(2), rounds=10**30)
