"""Consistency sampling, against the Gaussian whose consistency function is known."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from conftest import mixture
from diffusers import LCMScheduler, TCDScheduler
from scipy import stats

from composer import Sampler, installed
from composer.recipes import decode, encode
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import Euler
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, Anagram, Consistency

MEAN, STD = 0.3, 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Consistent(GaussianMixtureBackend):
    """The exact consistency function of N(m, c^2): the end of the ODE's trajectory through x,
    m + c (x - alpha m) / sqrt(alpha^2 c^2 + sigma^2)."""

    def posterior_mean(self, x, alpha, sigma, condition):
        return MEAN + STD * (x - alpha * MEAN) / math.hypot(alpha * STD, sigma)


def pixels(kind, schedule, gamma, steps):
    """4,096 independent samples."""
    means = torch.full((1, 1, 64, 64), MEAN, dtype=torch.float64)
    backend = kind(means, [STD], schedule=schedule)
    return Sampler(backend, [], Consistency(gamma), steps).sample(seeds=[5]).x.flatten()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_consistency_model_is_exact_in_any_number_of_steps(schedule, steps):
    """The Kolmogorov-Smirnov test at 1e-4 a line; the power is the test below."""
    made = pixels(Consistent, schedule, 1.0, steps)
    assert stats.kstest(made.numpy(), "norm", (MEAN, STD)).pvalue > 1e-4


def test_a_model_of_the_mean_is_too_narrow():
    """One step to the mean of x_0 gives a point, two give the variance of the recursion."""
    schedule = FlowSchedule()
    assert float(pixels(GaussianMixtureBackend, schedule, 1.0, 1).std()) < 1e-6
    made = pixels(GaussianMixtureBackend, schedule, 1.0, 2)
    # From x = m / 2 + z / 2 to the mean of x_0: the gain is alpha c^2 / v, and v = c^2 / 4 + 1 / 4.
    gain = 0.5 * STD**2 / (0.25 * STD**2 + 0.25)
    assert float(made.std()) == pytest.approx(gain * 0.5, rel=0.06)  # 5 standard errors
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.02)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.7, 1.0])
def test_the_variance_is_that_of_the_recursion(schedule, gamma):
    """Each step is linear in x, so the variance has a closed form at every gamma."""
    steps = 3
    times = schedule.times(steps)
    mean, variance = 0.0, schedule.noise_scale**2
    for t, s in pairwise(times):
        alpha, sigma = schedule.at(t)
        of_x0 = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        of_noise = sigma / (alpha**2 * STD**2 + sigma**2)
        inner = schedule.time_at((1 - gamma) * schedule.noise_level(s))
        a, b = schedule.at(inner)
        ratio = schedule.at(s)[0] / a
        gain = ratio * (a * of_x0 + b * of_noise)
        fresh = max(schedule.at(s)[1] ** 2 - (ratio * b) ** 2, 0.0)
        mean = ratio * a * MEAN + gain * (mean - alpha * MEAN)
        variance = gain**2 * variance + fresh
    made = pixels(GaussianMixtureBackend, schedule, gamma, steps)
    assert float(made.var()) == pytest.approx(variance, rel=0.12)  # 5 standard errors
    assert float(made.mean()) == pytest.approx(mean, abs=0.05)


def test_without_fresh_noise_it_is_euler(schedule):
    backend = mixture(schedule)
    ours, euler = (Sampler(backend, [CFG(2)], s, 5) for s in (Consistency(0.0), Euler()))
    made, expected = (sampler.sample(1, seeds=[1, 2]).x for sampler in (ours, euler))
    torch.testing.assert_close(made, expected)


class Given:
    """A state of one step."""

    def __init__(self, schedule, t, s, z):
        self.t, self.t_next, self.z = t, s, z

    def randn(self):
        return self.z


def one_step(schedule, t, s, gamma, x, noise, z):
    backend = mixture(schedule, "epsilon")
    request = Sampler(backend).denoise(x, t, 1)
    return Consistency(gamma).step(Given(schedule, t, s, z), request.with_noise(noise))


def test_a_step_is_that_of_diffusers():
    """LCM at gamma 1, TCD at the gamma whose cleaner time is the scheduler's own."""
    schedule = DiscreteSchedule.linear()
    draws = torch.Generator().manual_seed(2)
    x, noise = (torch.randn(1, 1, 8, 8, generator=draws, dtype=torch.float64) for _ in range(2))
    t, s, eta = 799, 599, 0.3
    options = {"beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    options["beta_schedule"] = "linear"
    theirs = TCDScheduler(set_alpha_to_one=True, original_inference_steps=50, **options)
    theirs.set_timesteps(timesteps=[999, t, s])
    theirs._step_index = 1
    made = theirs.step(noise, t, x, eta=eta, generator=torch.Generator().manual_seed(9)).prev_sample
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype)
    inner = schedule.noise_level(math.floor((1 - eta) * s))
    gamma = 1 - inner / schedule.noise_level(s)
    torch.testing.assert_close(
        one_step(schedule, t, s, gamma, x, noise, z), made, rtol=1e-5, atol=1e-5
    )
    theirs = LCMScheduler(set_alpha_to_one=True, timestep_scaling=1e9, **options)
    theirs.set_timesteps(timesteps=[999, t, s])
    theirs._step_index = 1
    made = theirs.step(noise, t, x, generator=torch.Generator().manual_seed(9)).prev_sample
    torch.testing.assert_close(
        one_step(schedule, t, s, 1.0, x, noise, z), made, rtol=1e-5, atol=1e-5
    )


def test_it_composes_and_is_written_in_a_recipe():
    sampler = Sampler(
        mixture(), [Anagram({"identity": 0, "rotate_180": 1}), CFG(2)], Consistency(0.3)
    )
    recipe = json.loads(json.dumps(encode(Consistency(0.3), installed())))
    assert decode(recipe, installed()) == Consistency(0.3)
    first, again = (sampler.sample(seeds=seeds).x for seeds in ([1, 2], [2]))
    torch.testing.assert_close(first[1:], again)
    with pytest.raises(ValueError, match="gamma must be in"):
        Consistency(1.5)
