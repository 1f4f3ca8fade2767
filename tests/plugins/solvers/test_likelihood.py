"""The log-likelihood by the flow equals the log density of the mixture."""

import math

import pytest
import torch
from conftest import mixture

from composer import Each, Sampler
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, log_likelihood

SMALL = (1, 2, 2)


def log_density(backend, x, component=None):
    """log sum_k w_k N(x; mu_k, s_k^2 I)."""
    chosen = range(len(backend.means)) if component is None else [component]
    parts = torch.stack(
        [
            torch.distributions.Normal(backend.means[k], backend.stds[k])
            .log_prob(x)
            .flatten(1)
            .sum(1)
            for k in chosen
        ]
    )
    return parts.logsumexp(0) - math.log(len(parts))


def images(backend, count=3):
    generator = torch.Generator().manual_seed(2)
    away = torch.randn((count, *backend.shape), generator=generator, dtype=torch.float64)
    return backend.means[:count] + 0.2 * away


@pytest.mark.parametrize("schedule", [FlowSchedule(), FlowSchedule(noise_scale=2.0)], ids=str)
@pytest.mark.parametrize("kind", ["flow", "v"])  # which say all at both ends of a flow
def test_the_exact_trace_gives_the_density_of_the_mixture(schedule, kind):
    backend = mixture(schedule, kind, SMALL)
    x = images(backend)
    found = log_likelihood(Sampler(backend, num_inference_steps=100), x, probes=None)
    torch.testing.assert_close(found, log_density(backend, x), rtol=0, atol=5e-5)


def test_conditions_and_several_of_them():
    backend = mixture(shape=SMALL)
    x, sampler = images(backend), Sampler(backend, num_inference_steps=60)
    one = log_likelihood(sampler, x, 2, probes=None)
    torch.testing.assert_close(one, log_density(backend, x, 2), rtol=0, atol=1e-3)
    each = log_likelihood(sampler, x, [0, 1, 2], probes=None)
    torch.testing.assert_close(each[2], one[2])


def test_of_a_discrete_schedule_it_is_the_density_at_time_0():
    """The mixture noised by sigma_0, as far as the run's noise is that of the path's end."""
    schedule = DiscreteSchedule.linear()
    backend = mixture(schedule, "epsilon", SMALL)
    alpha, sigma = schedule.at(0)
    noised = GaussianMixtureBackend(
        alpha * backend.means, [math.hypot(alpha * s, sigma) for s in backend.stds]
    )
    x = images(backend)
    found = log_likelihood(Sampler(backend, num_inference_steps=60), x, probes=None)
    left, _ = schedule.at(999)  # the signal in the noisiest image
    torch.testing.assert_close(found, log_density(noised, x), rtol=0, atol=3 * left)


def test_errors_fall_with_the_third_order():
    backend = mixture(shape=SMALL)
    x = images(backend)
    errors = [
        (
            log_likelihood(Sampler(backend, num_inference_steps=n), x, probes=None)
            - log_density(backend, x)
        )
        .abs()
        .max()
        .item()
        for n in (20, 40)
    ]
    assert math.log2(errors[0] / errors[1]) > 2.5


def test_random_probes_are_right_on_average():
    """Within 5 standard errors of the trace: wrong in one of a million runs."""
    backend = mixture(shape=SMALL)
    x, sampler = images(backend, 1), Sampler(backend, num_inference_steps=12)
    exact = log_likelihood(sampler, x, probes=None)
    found = log_likelihood(sampler, x.expand(64, -1, -1, -1), probes=2)
    error = float(found.mean() - exact)
    assert abs(error) < 5 * float(found.std()) / 64**0.5
    assert float(found.std()) > 1e-3
    many = log_likelihood(sampler, x.expand(64, -1, -1, -1), probes=8)
    assert float(many.std() / found.std()) == pytest.approx(0.5, rel=0.5)


def test_a_gaussian_needs_one_probe():
    """Its divergence is a multiple of the identity, which every sign measures exactly."""
    backend = GaussianMixtureBackend(torch.zeros((1, 1, 4, 4), dtype=torch.float64), [0.5])
    x = torch.full((2, 1, 4, 4), 0.3, dtype=torch.float64)
    found = log_likelihood(Sampler(backend, num_inference_steps=100), x)
    torch.testing.assert_close(found, log_density(backend, x), rtol=0, atol=1e-4)


def test_float32_costs_little():
    x = images(mixture(shape=SMALL))
    exact, rounded = (
        log_likelihood(Sampler(mixture(shape=SMALL, dtype=d), num_inference_steps=30), x, None)
        for d in (torch.float64, torch.float32)
    )
    torch.testing.assert_close(rounded, exact, rtol=0, atol=5e-3)


def test_rows_and_guidance():
    backend = mixture(shape=SMALL)
    x = images(backend)
    plain, guided = (
        log_likelihood(Sampler(backend, stack, num_inference_steps=10), x, 1)
        for stack in ([], [CFG(3.0)])
    )
    assert (plain - guided).abs().max() > 0.1


def test_images_of_another_size_raise():
    with pytest.raises(ValueError, match="log_likelihood: images"):
        log_likelihood(Sampler(mixture()), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="log_likelihood: probes"):
        log_likelihood(Sampler(mixture()), torch.zeros(1, 1, 8, 8), probes=0)


def test_what_a_stack_holds_per_seed_belongs_to_its_image():
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 4
    both = log_likelihood(Sampler(mixture(), [CFG((1.0, 2.0))], None, 3), x, Each([0, 1]))
    assert torch.equal(both, log_likelihood(Sampler(mixture(), [CFG((1, 2))], None, 3), x, [0, 1]))
    for k in range(2):
        one = Sampler(mixture(), [CFG(1.0 + k)], None, 3)
        torch.testing.assert_close(both[k : k + 1], log_likelihood(one, x[k : k + 1], k, seed=k))
    with pytest.raises(ValueError, match="2 in all, got 3"):
        log_likelihood(Sampler(mixture()), x, [0, 1, 1])


@pytest.mark.parametrize("wrong", [{"sampler": 3}, {"seed": None}, {"probes": 10**30}])
def test_bad_arguments_raise(wrong):
    given = {"sampler": Sampler(mixture()), "images": torch.zeros(1, 1, 8, 8)} | wrong
    with pytest.raises((TypeError, ValueError), match=f"log_likelihood: {next(iter(wrong))} must"):
        log_likelihood(**given)
