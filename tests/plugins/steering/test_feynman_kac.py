"""Feynman-Kac steering: closed forms over one Gaussian, laws, and bad input."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from composer import Sampler, State
from composer.schedules import DiscreteSchedule, ancestral_variance
from composer.solvers import DDPM, DiffusersSolver
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, Anagram, Inpaint
from composer_plugins.steering.feynman_kac import FeynmanKac, _draw
from composer_plugins.steering.particles import Particles

STD, TILT, STEPS = 0.25, 3.0, 20
GAUSSIAN = GaussianMixtureBackend(torch.zeros(1, 1, 1, 1, dtype=torch.float64), [STD])


def brightness(x):
    return x.flatten(1).sum(1)


def solver_variance():
    """Of DDPM's samples: every step is x <- a x + b z, with x_0 the posterior mean of x."""
    schedule = GAUSSIAN.schedule
    times, variance = schedule.times(STEPS), 1.0
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.at(t), schedule.at(s)
        beta = ancestral_variance(alpha_t, sigma_t, alpha_s, sigma_s)
        x0_of_x = alpha_t * STD**2 / (alpha_t**2 * STD**2 + sigma_t**2)
        gain = (alpha_s * beta * x0_of_x + alpha_t / alpha_s * sigma_s**2) / sigma_t**2
        variance = gain**2 * variance + beta * sigma_s**2 / sigma_t**2
    return variance


def sampled(plugin, seeds=range(1000)):
    x = Sampler(GAUSSIAN, [plugin], DDPM(), STEPS).sample(0, seeds).x
    return x.flatten().numpy()


def test_it_samples_the_tilted_density():
    """N(0, v) times exp(l x) is N(l v, v); v is the solver's own, a little below .25^2.

    1000 seeds, Kolmogorov-Smirnov at p > 1e-4, fixed seeds. Power: one candidate, which is the
    model itself, and the best of 32, which is greedy, are both rejected below 1e-6.
    """
    variance = solver_variance()
    model = stats.norm(0, variance**0.5).cdf
    tilted = stats.norm(TILT * variance, variance**0.5).cdf
    assert stats.kstest(sampled(FeynmanKac(brightness, TILT, 32)), tilted).pvalue > 1e-4
    alone = sampled(FeynmanKac(brightness, TILT, 1))
    assert stats.kstest(alone, model).pvalue > 1e-4
    assert stats.kstest(alone, tilted).pvalue < 1e-6
    greedy = sampled(Particles(brightness, ((1, 32), (0, 1))), range(200))
    assert stats.kstest(greedy, tilted).pvalue < 1e-6


def test_without_strength_the_first_step_is_that_of_the_plain_run():
    plain = next(Sampler(GAUSSIAN, [], DDPM(), 4).stream(0, [3]))
    steered = next(Sampler(GAUSSIAN, [FeynmanKac(brightness, 0.0, 3)], DDPM(), 4).stream(0, [3]))
    torch.testing.assert_close(steered.x[:1], plain.x)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=9), st.floats(0, 1, exclude_max=True))
def test_systematic_resampling_copies_in_proportion(log_weights, place):
    """Each index comes floor or ceil of its share times the number drawn."""
    weights = torch.tensor(log_weights, dtype=torch.float64)
    count = 7
    drawn = _draw(weights, place, count)
    counts = torch.bincount(drawn, minlength=len(weights)).double()
    assert len(drawn) == count
    shares = count * weights.softmax(0)
    assert (counts >= (shares - 1e-9).floor()).all()
    assert (counts <= (shares + 1e-9).ceil()).all()


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=4, unique=True))
def test_an_image_depends_on_its_own_seed_alone(seeds):
    sampler = Sampler(mixture(), [FeynmanKac(brightness, 3.0, 4), CFG(2.0)], DDPM(), 5)
    together = sampler.sample(1, seeds=seeds).x
    for k, seed in enumerate(seeds):
        torch.testing.assert_close(together[k : k + 1], sampler.sample(1, seeds=[seed]).x)


def test_it_stacks_and_a_scheduler_forgets_what_was_resampled():
    from diffusers import DPMSolverMultistepScheduler

    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    image, mask = torch.zeros(2, 1, 8, 8, dtype=torch.float64), torch.ones(8, 8)
    mask[:, :4] = 0
    stack = [
        FeynmanKac(brightness, 50.0, 4),
        Inpaint(image, mask),
        Anagram({"identity": 0, "flip": 1}),
        CFG(3.0),
    ]
    for solver in (None, DDPM(), DiffusersSolver(DPMSolverMultistepScheduler())):
        result = Sampler(backend, stack, solver, 6).sample(seeds=[4, 5])
        assert result.x.shape == (2, 1, 8, 8)
        assert torch.equal(result.x[..., :4], image[..., :4])
        assert result.stats.rows == 6 * 2 * 4 * 4


def test_after_resampling_the_weights_are_even_and_the_scores_those_of_the_ancestors():
    """At every step of a strong tilt: what is kept is a function of the images as they now are."""
    plugin, resampled = FeynmanKac(brightness, 60.0, 6), 0
    sampler = Sampler(mixture(), [plugin], DDPM(), 8)
    for state in sampler.stream(1, [3, 4]):
        if state.finished:
            break
        scores, weights = state.memory[plugin]
        now = brightness(state.estimate.x0.clamp(-1, 1)).reshape(2, 6)
        torch.testing.assert_close(scores, now)
        even = (weights == 0).all(1)
        share = weights.softmax(1)
        assert bool((even | (1 / share.square().sum(1) >= 3)).all())
        resampled += int(even.sum())
    assert resampled >= 5  # of 14; without resampling none


def test_weights_that_overflow_raise():
    with pytest.raises(ValueError, match="Lower it"):
        Sampler(
            mixture(), [FeynmanKac(lambda x: 1e300 * brightness(x), 1e18, 3)], DDPM(), 3
        ).sample(1)


def test_a_copy_keeps_its_own_draws():
    backend = mixture()
    generators = tuple(torch.Generator().manual_seed(s) for s in (1, 2))
    x = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]).double()
    state = State(x, [0.0, 1.0], None, (1,), backend, 1, generators=generators, origin=(0, 0))
    state.copy(torch.tensor([1, 1]))
    noise = state.randn()
    assert torch.equal(state.x[0], state.x[1])
    assert state.selections == 1
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("bright",), TypeError, "score must be a function"),
        ((brightness, math.nan), ValueError, "strength"),
        ((brightness, "2"), TypeError, "strength"),
        ((brightness, 1.0, 0), ValueError, "at least 1"),
    ],
)
def test_bad_arguments_raise(arguments, error, words):
    with pytest.raises(error, match=words):
        FeynmanKac(*arguments)


def test_two_that_follow_several_images_raise():
    with pytest.raises(ValueError, match="Particles and FeynmanKac in one stack"):
        Sampler(mixture(), [Particles(brightness), FeynmanKac(brightness)])
