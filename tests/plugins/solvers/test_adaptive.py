"""The adaptive solver keeps its tolerance, images apart, and its one read."""

from functools import cache

import convergence
import numpy as np
import pytest
import torch
from conftest import mixture

from composer import Sampler
from composer.authoring import declared
from composer.schedules import DiscreteSchedule
from composer.solvers import Heun
from composer.testing import GaussianMixtureBackend
from composer.testing.reads import Reads
from composer_plugins import CFG, Adaptive, Anagram, Inpaint, Particles
from composer_plugins.solvers import adaptive

SEEDS = range(6)


@cache
def exact():
    return Sampler(mixture(), [CFG(3.0)], Heun(), 500).sample(1, seeds=SEEDS).x


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_error_follows_the_tolerance(steps):
    backend, plugins = mixture(), [CFG(3.0)]
    target, errors, rows = exact(), [], []
    for tolerance in (1e-2, 1e-3, 1e-4):
        result = Sampler(backend, plugins, Adaptive(tolerance), steps).sample(1, seeds=SEEDS)
        errors.append((result.x - target).square().mean().sqrt().item())
        rows.append(result.stats.rows)
        assert errors[-1] < 3 * tolerance
    assert rows == sorted(rows)


def test_one_step_is_bogacki_and_shampines():
    """For an image of zeros the noise is u / tau, so that du / dtau = u / tau, and u' = 0 exactly:
    one step of three evaluations, the loop's included."""
    backend = GaussianMixtureBackend(torch.zeros(1, 1, 1, 1, dtype=torch.float64), [1e-9])
    result = Sampler(backend, solver=Adaptive(1e-3), num_inference_steps=1).sample()
    assert result.x.abs().max() < 1e-8
    assert result.stats.rows == 3


def test_errors_fall_with_the_third_order_of_the_evaluations():
    results = [convergence.run(Adaptive(tolerance), 1) for tolerance in (1e-2, 1e-3, 1e-4)]
    errors = [float((result.x - convergence.exact(whole=True)).norm()) for result in results]
    rows = [result.stats.rows for result in results]
    assert -np.polyfit(np.log(rows), np.log(errors), 1)[0] > 2.7


def test_each_image_takes_steps_of_its_own():
    sampler = Sampler(mixture(), [CFG(2.0)], Adaptive(1e-3), 2)
    both = sampler.sample(1, seeds=[0, 1])
    alone = [sampler.sample(1, seeds=[seed]) for seed in (0, 1)]
    torch.testing.assert_close(both.x, torch.cat([one.x for one in alone]))
    assert both.stats.rows == sum(one.stats.rows for one in alone)


def test_conditions_of_seeds_follow_their_images():
    sampler = Sampler(mixture(), [CFG(2.0)], Adaptive(1e-3), 1)
    both = sampler.sample([0, 3], seeds=[4, 5]).x
    torch.testing.assert_close(both[1:], sampler.sample(3, seeds=[5]).x)


def test_it_declares_that_it_reads_once_a_step():
    assert declared(Adaptive(), "reads_device")
    assert not declared(Heun(), "reads_device")
    sampler = Sampler(mixture(components=3), [], Adaptive(1e-2), 2)
    with Reads() as seen:
        result = sampler.sample(seeds=[0, 1])
    assert set(seen.counts) == {"tolist"}
    # The last read is the run's; each other is of a step, which has two or three calls.
    assert result.stats.calls / 3 <= seen.counts["tolist"] - 1 <= result.stats.calls / 2


def test_plugins_act_at_the_planned_times(schedule):
    image, mask = torch.zeros(1, 8, 8, dtype=torch.float64), torch.eye(8)
    views = Anagram({"identity": 0, "rotate_180": 1})
    stack = [Inpaint(image, mask, "repaint", 1, 2), views, CFG(2.0)]
    states = [*Sampler(mixture(schedule), stack, Adaptive(1e-1), 4).stream(seeds=[0, 1])]
    assert len(states) == 4 + 3
    assert torch.equal(states[-1].x[:, 0, mask == 0], torch.zeros(2, 56, dtype=torch.float64))


def test_it_lives_with_particles():
    chosen = Particles(lambda x: -x.flatten(1).norm(dim=1), ((1, 3), (0, 1)))
    result = Sampler(mixture(), [chosen], Adaptive(1e-2), 4).sample(seeds=[0, 1])
    assert result.x.shape == (2, 1, 8, 8)


def test_no_model_is_evaluated_below_the_least_noise_of_training():
    schedule, seen = DiscreteSchedule.linear(), []

    class Looking(GaussianMixtureBackend):
        def evaluate(self, batch):
            seen.extend(batch.times)
            return super().evaluate(batch)

    backend = mixture(schedule, "epsilon")
    looking = Looking(backend.means, backend.stds, None, schedule, backend.prediction)
    Sampler(looking, solver=Adaptive(1e-2), num_inference_steps=2).sample()
    assert min(seen) == pytest.approx(0, abs=1e-6)


def test_a_tolerance_below_rounding_ends(monkeypatch):
    monkeypatch.setattr(adaptive, "SHORTEST", 0.02)
    backend = mixture(dtype=torch.float32)
    result = Sampler(backend, solver=Adaptive(1e-12), num_inference_steps=1).sample()
    assert 3 * 50 <= result.stats.rows <= 3 * 110
    assert result.x.isfinite().all()


@pytest.mark.parametrize("tolerance", [0, -1.0, float("nan")])
def test_impossible_tolerances_raise(tolerance):
    with pytest.raises(ValueError, match="Adaptive: tolerance"):
        Adaptive(tolerance)
