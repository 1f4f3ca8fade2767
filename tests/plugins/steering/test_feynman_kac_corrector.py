"""Feynman-Kac correctors: the tilted Gaussians in closed form, beside the plain mean's bias."""

import math
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from conftest import mixture
from scipy import stats

import composer
from composer import UNCONDITIONAL, Request, Sampler
from composer.driver import resolve
from composer.model import Model
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDPM
from composer.stats import Stats
from composer.testing import GaussianMixtureBackend, check_stack
from composer_plugins import CFG, FeynmanKac, FeynmanKacCorrector, Langevin

WIDTH = 4.0


def pixels(means, stds, shape=(1, 1, 1), **options):
    """Gaussians with one mean for all pixels: conditions 0, 1, ..."""
    means = torch.tensor(means, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return GaussianMixtureBackend(means.expand(-1, *shape), stds, **options)


def target(means, stds, powers):
    """prod N(m_i, s_i^2)^p_i, and N(0, WIDTH^2) to the missing power: its mean and deviation."""
    missing = 1 - sum(powers)
    precision = sum(p / s**2 for p, s in zip(powers, stds, strict=True)) + missing / WIDTH**2
    mean = sum(p * m / s**2 for p, m, s in zip(powers, means, stds, strict=True)) / precision
    return mean, precision**-0.5


CASES = {
    "guidance": ((0.0, 0.75), (0.625, 0.25), (-1.0, 2.0)),
    "geometric mean": ((-0.75, 0.75), (0.25, 0.625), (0.5, 0.5)),
    "product": ((-0.75, 0.75), (0.25, 0.625), (1.0, 1.0)),
    "annealing": ((0.75,), (0.375,), (2.5,)),
}


def asked(backend, plugin, x, t, s):
    """The plugin's estimate at x for the step from t to s, and the log weights that it adds."""
    request = Request(x, t, schedule=backend.schedule, backend=backend, t_next=s)
    estimate = resolve(request, [plugin.noise_estimate], Model(backend, None, Stats()))
    return estimate, *request.carried.values()


def law(case, steps, weighted=True):
    """Mean and deviation that endless candidates have after so many steps, exactly.

    Over Gaussians a step is x <- k x + b + d z and the log weight a quadratic in x, so three points
    tell both, and all candidates stay Gaussian.
    """
    means, stds, powers = CASES[case]
    backend = pixels(means, stds)
    plugin = FeynmanKacCorrector([*range(len(powers))], powers, width=WIDTH)
    points = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    mean, variance = 0.0, 1.0
    for t, s in pairwise(backend.schedule.times(steps)):
        estimate, growth = asked(backend, plugin, points, t, s)
        if weighted:
            low, middle, high = growth.tolist()
            precision = 1 / variance - (low + high - 2 * middle)
            mean, variance = (mean / variance + (high - low) / 2) / precision, 1 / precision
        zeros, ones = (
            plugin.step(SimpleNamespace(t=t, t_next=s, randn=lambda z=z: z), estimate).flatten()
            for z in (torch.zeros_like(points), torch.ones_like(points))
        )
        mean = float(zeros[1] + (zeros[2] - zeros[1]) * mean)
        variance = float((zeros[2] - zeros[1]) ** 2 * variance + (ones - zeros)[1] ** 2)
    return mean, variance**0.5


@cache
def drawn(case, particles, seeds, steps=20):
    means, stds, powers = CASES[case]
    plugin = FeynmanKacCorrector([*range(len(powers))], powers, width=WIDTH)
    run = Sampler(pixels(means, stds), [FeynmanKac(particles=particles), plugin], None, steps)
    return run.sample(seeds=range(seeds)).x.flatten().numpy()


@pytest.mark.parametrize("case", CASES)
def test_endless_candidates_have_the_power_or_product(case):
    """No statistics: the law of the weighted candidates converges to the closed form in the order
    of the steps, and that of the plain mean does not."""

    def errors(steps, weighted=True):
        pairs = zip(law(case, steps, weighted), target(*CASES[case]), strict=True)
        return [abs(seen - expected) for seen, expected in pairs]

    coarse, fine, plain = errors(100), errors(400), errors(400, weighted=False)
    assert max(fine) < 0.008
    assert max(fine) < max(coarse) / 3  # four times the steps
    assert max(plain) > 10 * max(fine)


@pytest.mark.parametrize("case", CASES)
def test_what_is_sampled_has_that_law(case):
    """Twenty steps, 24 candidates, 150 seeds, against the law of endless candidates: Kolmogorov-
    Smirnov at p > 1e-4, which chance alone (were 24 endless) fails once in 10,000.

    Power: the plain mean, one candidate, has its own law and is rejected by the other.
    """
    seen, plain = drawn(case, 24, 150), drawn(case, 1, 1500)
    assert stats.kstest(seen, stats.norm(*law(case, 20)).cdf).pvalue > 1e-4
    assert stats.kstest(plain, stats.norm(*law(case, 20, weighted=False)).cdf).pvalue > 1e-4
    assert stats.kstest(plain, stats.norm(*law(case, 20)).cdf).pvalue < 1e-4


def growth_and_scores(powers, schedule, x, **options):
    """The log weights of one short step, and g^2 dt and the scores that the paper has."""
    backend = pixels((0.5, -0.25), (0.25, 0.5), (1, 4, 4), schedule=schedule)
    t = schedule.time_at(0.4)
    s = t - 0.01 if isinstance(schedule, DiscreteSchedule) else t + 1e-5
    plugin = FeynmanKacCorrector([0, 1], powers, **options)
    _, added = asked(backend, plugin, x, t, s)
    model, request = Model(backend, None, Stats()), Request(x, t, schedule=schedule)
    scores = [
        -e.noise / schedule.at(t)[1] for e in model([request.replace(condition=c) for c in (0, 1)])
    ]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.at(t), schedule.at(s)
    g2 = sigma_t**2 - sigma_s**2 + 2 * (alpha_s - alpha_t) / alpha_t * sigma_t**2
    return added, g2, [score.flatten(1) for score in scores]


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule.linear()])
def test_short_steps_weigh_as_in_the_paper(schedule):
    """Guidance g^2 s (s - 1) |s_1 - s_0|^2 / 2, product g^2 <s_0, s_1>, annealing
    g^2 p (p - 1) |s_0|^2 / 2, for the difference of two images."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64)

    def check(powers, paper):
        added, g2, scores = growth_and_scores(powers, schedule, x, width=1e6)
        expected = g2 * paper(*scores)
        torch.testing.assert_close(added.diff(), expected.diff(), rtol=2e-3, atol=0.0)
        assert expected.diff().abs() > 1e-6

    check((-2.0, 3.0), lambda a, b: 3 * 2 * (a - b).square().sum(1) / 2)
    check((1.0, 1.0), lambda a, b: (a * b).sum(1))
    check((2.5, 0.0), lambda a, b: 2.5 * 1.5 * a.square().sum(1) / 2)


def test_gaussians_of_one_deviation_need_no_weights():
    """Guidance between them is exact already: the candidates' weights stay equal, at any steps."""
    backend = mixture(components=2)
    backend = GaussianMixtureBackend(backend.means, [0.25, 0.25])
    chosen = FeynmanKac(particles=4)
    plugin = FeynmanKacCorrector([0, 1], (3.0, -2.0), data_std=0.25)
    for state in Sampler(backend, [chosen, plugin], None, 4).stream(seeds=[0, 1]):
        if not state.finished:
            _, weights = state.memory[chosen]
            assert float((weights - weights.mean(1, keepdim=True)).abs().max()) < 1e-8
            assert float(weights.abs().max()) > 1  # shared, but not nothing


def test_views_make_the_anagrams_own_density():
    """sqrt(q_0(x) q_1(flip x)): these views see equal pixels, so each has the geometric mean above.
    200 pixels of 100 seeds: within five standard errors, .115 (6e-7); the plain mean is .13 off."""
    means, stds, powers = CASES["geometric mean"]
    mean, _ = target(means, stds, powers)
    plugin = FeynmanKacCorrector({"identity": 0, "flip": 1}, powers)
    backend = pixels(means, stds, (1, 2, 1))

    def sample_mean(particles, seeds):
        run = Sampler(backend, [FeynmanKac(particles=particles), plugin], None, 25)
        return float(run.sample(seeds=range(seeds)).x.mean())

    assert abs(sample_mean(24, 100) - mean) < 0.115
    assert abs(sample_mean(1, 1000) - mean) > 0.13


def test_guidance_asks_the_calls_condition_and_two_rows():
    backend = mixture()
    stack = [FeynmanKac(particles=3), FeynmanKacCorrector([None, UNCONDITIONAL], (3.0, -2.0))]
    stats_ = Sampler(backend, stack, None, 4).sample(1, seeds=[0, 1]).stats
    assert (stats_.calls, stats_.rows) == (4, 4 * 2 * 3 * 2)
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    ours = Sampler(backend, stack).denoise(x, 0.5, 1)
    theirs = Sampler(backend, [CFG(3.0)]).denoise(x, 0.5, 1)
    torch.testing.assert_close(ours.prediction, theirs.prediction)
    alone = [FeynmanKac(particles=3), FeynmanKacCorrector([0, 1], (1.0, 0.0))]
    assert Sampler(backend, alone, None, 4).sample(seeds=[0]).stats.rows == 4 * 3


def test_a_missing_power_gives_one_sample_for_all_prediction_types():
    """Also from pure noise, where a power of noised densities alone would have no clean image."""
    samples = []
    for name in PREDICTIONS:
        schedule = FlowSchedule() if name in ("flow", "sample") else DiscreteSchedule.linear()
        backend = mixture(schedule, name)
        stack = [FeynmanKac(particles=2), FeynmanKacCorrector([0], (2.0,))]
        samples.append(Sampler(backend, stack, None, 10).sample(seeds=[0]).x)
    flow, sample = (
        samples[list(PREDICTIONS).index("flow")],
        samples[list(PREDICTIONS).index("sample")],
    )
    torch.testing.assert_close(flow, sample)
    epsilon, v = samples[list(PREDICTIONS).index("epsilon")], samples[list(PREDICTIONS).index("v")]
    torch.testing.assert_close(epsilon, v)


@pytest.mark.filterwarnings("ignore:FeynmanKacCorrector")
def test_powers_that_sum_to_one_obey_the_law():
    check_stack([FeynmanKacCorrector([1, 2, UNCONDITIONAL], (1.0, 1.0, -1.0))])
    assert not FeynmanKacCorrector([1], (2.0,)).obeys_law


def test_an_image_depends_on_its_own_seed_alone():
    stack = [FeynmanKac(particles=4), FeynmanKacCorrector([0, 1], (0.5, 0.5))]
    sampler = Sampler(mixture(), stack, None, 5)
    together = sampler.sample(seeds=[5, 6, 7]).x
    alone = torch.cat([sampler.sample(seeds=[seed]).x for seed in (5, 6, 7)])
    torch.testing.assert_close(together, alone)


def test_a_score_and_a_corrector_share_the_candidates():
    """N(m, v) to the power 2, tilted by exp(l x): N(m + l v / 2, v / 2) up to the width."""
    stack = [
        FeynmanKac(lambda x: x.flatten(1).sum(1), 2.0, 24),
        FeynmanKacCorrector([0], (2.0,), width=64.0),
    ]
    x = Sampler(pixels((0.0,), (0.5,)), stack, None, 25).sample(seeds=range(100)).x
    # A standard error of .035, five of them (6e-7), and .03 for the steps and candidates.
    assert float(x.mean()) == pytest.approx(2 * 0.25 / 2, abs=5 * (0.125 / 100) ** 0.5 + 0.03)


def test_stacks_without_a_meaning_raise_or_warn():
    backend, plugin = mixture(), FeynmanKacCorrector([0, 1], (0.5, 0.5))
    with pytest.warns(UserWarning, match="nothing resamples"):
        Sampler(backend, [plugin])
    with pytest.raises(ValueError, match="outermost plugin that estimates noise"):
        Sampler(backend, [FeynmanKac(particles=2), CFG(2.0), plugin])
    with pytest.raises(ValueError, match="cannot be combined with Langevin"):
        Sampler(backend, [FeynmanKac(particles=2), plugin, Langevin()])
    with pytest.raises(ValueError, match="score must be given"):
        Sampler(backend, [FeynmanKac()])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, (1.0,)), TypeError, "readings must be a list of conditions"),
        (([0, 1], (1.0,)), ValueError, "powers must be 2, one per reading"),
        (([0, 1], (0.0, 0.0)), ValueError, "not all 0"),
        (([0], (math.nan,)), ValueError, "powers must be finite"),
        (([0], (1.0,), -1.0), ValueError, "data_std must be a positive"),
        (([0], (1.0,), 1.0, 0.0), ValueError, "width must be a positive"),
    ],
)
def test_bad_correctors_raise(arguments, error, words):
    with pytest.raises(error, match=words):
        FeynmanKacCorrector(*arguments)


def test_correctors_are_written_into_recipes():
    backend = composer.load_backend("mnist")
    stack = [FeynmanKac(particles=2), FeynmanKacCorrector([None, UNCONDITIONAL], (2.0, -1.0))]
    result = Sampler(backend, stack, DDPM(), 2).sample(7)
    again = Sampler.from_recipe(result.recipe).sample(7).x
    assert torch.equal(again, result.x)
