"""The corrector: exact where the plain mean of scores is not."""

import pytest
import torch
from conftest import mixture

from composer import Sampler
from composer.schedules import DiscreteSchedule
from composer.solvers import DPMSolverPP
from composer.testing import GaussianMixtureBackend
from composer.transforms import Composed
from composer_plugins import CFG, Anagram, Hybrid, Inpaint, SDEdit
from composer_plugins.steering.langevin import Langevin

STDS, MEANS = (0.1, 0.5), (-0.6, 0.6)


def product_samples(plugins, steps):
    """4096 samples of the mean of two Gaussians' scores: the independent pixels of one image."""
    means = torch.tensor(MEANS, dtype=torch.float64).reshape(2, 1, 1, 1).expand(2, 1, 64, 64)
    backend = GaussianMixtureBackend(means, STDS)
    both = Anagram({"identity": 0, Composed(): 1})  # two names of the identity
    return Sampler(backend, [both, *plugins], None, steps).sample().x.flatten()


def test_the_plain_mean_misses_the_product_and_the_corrector_does_not():
    """p ~ sqrt(p_0 p_1) is Gaussian: precision (1/s_0^2 + 1/s_1^2) / 2, mean weighed by precision.

    4096 samples: the mean is off by more than 5 standard errors with probability 6e-7; the
    corrector may err by that and by .02, what walks of this size leave; the plain mean, with
    many steps, is off by five times as much.
    """
    precisions = torch.tensor([1 / s**2 for s in STDS]) / 2
    variance = 1 / precisions.sum()
    mean = (precisions * torch.tensor(MEANS)).sum() * variance
    error = (variance / 4096) ** 0.5

    plain = product_samples([], 200)
    corrected = product_samples([Langevin(steps=40, size=0.4)], 20)
    allowed = 5 * error + 0.02
    assert (plain.mean() - mean).abs() > 5 * allowed
    assert (corrected.mean() - mean).abs() < allowed
    assert float(corrected.var()) == pytest.approx(float(variance), rel=0.15)


def test_walks_are_added_to_the_plan_and_counted():
    backend = mixture()
    plain = Sampler(backend, [CFG(2.0)], num_inference_steps=6).sample(1)
    walked = Sampler(backend, [CFG(2.0), Langevin(2, 0.1, (0.3, 0.7))], num_inference_steps=6)
    # Noise levels after the steps: .83, .67, .5, .33, .17, 0, of which three are in the interval.
    assert walked.sample(1).stats.calls == plain.stats.calls + 3 * 2


def test_it_stacks_with_plans_and_solvers():
    backend = mixture(DiscreteSchedule.linear(), "v")
    image, mask = torch.zeros(1, 8, 8, dtype=torch.float64), torch.ones(8, 8)
    mask[:, :4] = 0
    stack = [Inpaint(image, mask, "repaint", 2, 2), SDEdit(image, 0.6), Langevin(2), CFG(2.0)]
    x = Sampler(backend, stack, DPMSolverPP(), 10).sample(1).x
    assert torch.equal(x[..., :4], torch.zeros(1, 1, 8, 4, dtype=torch.float64))
    assert torch.isfinite(x).all()


def test_a_right_score_stays_right():
    """On one Gaussian the walk keeps the distribution: variance within its stated bias.

    4096 pixels: the variance's standard error is 2.2 %, five of them and the bias 5 %.
    """
    backend = GaussianMixtureBackend(torch.zeros(1, 1, 64, 64, dtype=torch.float64), [0.3])
    sampler = Sampler(backend, [Langevin(5, 0.1)], num_inference_steps=40)
    assert float(sampler.sample(0).x.var()) == pytest.approx(0.09, rel=0.17)


def test_it_raises_beside_views_in_turn():
    turns = Anagram({"identity": 0, "flip": 1}, "alternate")
    for stack in ([turns, Langevin()], [Hybrid(turns, 2), Langevin()]):
        with pytest.raises(ValueError, match="needs all views at each step"):
            Sampler(mixture(shape=(1, 16, 16)), stack)


def test_every_state_has_an_estimate():
    """Also after a walk: previews read it."""
    states = Sampler(mixture(), [Langevin(2)], DPMSolverPP(), 4).stream(1)
    assert all(torch.isfinite(state.estimate.x0).all() for state in states)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "at least 1"),
        ({"size": 0.0}, "positive"),
        ({"size": 2.0}, "below 2"),
        ({"interval": (0.5, 0.2)}, "interval"),
    ],
)
def test_bad_arguments_raise(options, words):
    with pytest.raises(ValueError, match=words):
        Langevin(**options)
    with pytest.raises(ValueError, match="two Langevin"):
        Sampler(mixture(), [Langevin(), Langevin()])
