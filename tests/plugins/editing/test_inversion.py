"""Inversion: the way back to the noise, and the pull towards the image."""

import pytest
import torch
from conftest import mixture
from diffusers import DDIMInverseScheduler

from composer import Sampler, hookimpl
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM, Euler
from composer.testing import GaussianMixtureBackend, IdentityBackend
from composer_plugins import CFG, Anagram, RFInversion, SDEdit, invert

MEANS = torch.tensor([-0.4, 0.5], dtype=torch.float64).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)
IMAGE = torch.linspace(-0.8, 0.4, 64, dtype=torch.float64).reshape(1, 1, 8, 8)


def wide(schedule):
    """Two Gaussians of images, wide enough for 20 steps."""
    return GaussianMixtureBackend(MEANS.contiguous(), [0.3, 0.3], schedule=schedule)


def reconstruction(sampler, **options):
    """The largest error of a pixel."""
    inverted = invert(sampler, IMAGE, 0, **options)
    x = sampler.sample(0, x=inverted.x, t=inverted.t).x
    return float((x - IMAGE).abs().max())


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_reconstruction_error_falls_to_rounding(schedule, strength):
    sampler = Sampler(wide(schedule), [], Euler(), 20)
    errors = [reconstruction(sampler, strength=strength, iterations=n) for n in (1, 2, 4, 30)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.3
    assert errors[1] < 0.4 * errors[0]
    assert errors[-1] < 1e-9


def test_more_steps_reconstruct_better():
    few, many = (
        reconstruction(Sampler(wide(mixture().schedule), [], Euler(), n)) for n in (20, 80)
    )
    assert many < 0.35 * few


def test_it_equals_the_inverse_scheduler_of_diffusers():
    schedule = DiscreteSchedule.linear(spacing="leading")
    backend = mixture(schedule, "epsilon")
    sampler, image = Sampler(backend, [CFG(1.5)], DDIM(), 10), backend.means[1:2]
    theirs = DDIMInverseScheduler(
        beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=True
    )
    theirs.set_timesteps(10)
    x = image
    for t in theirs.timesteps.tolist():
        ahead = x  # their step, repeated with the noise at its own end
        for _ in range(60):
            noise = sampler.denoise(ahead, float(t), 1).noise
            ahead = theirs.step(noise, t, x).prev_sample
        x = ahead
    ours = invert(sampler, image, 1, iterations=60)
    torch.testing.assert_close(ours.x, x, rtol=1e-4, atol=1e-4)


def test_another_condition_moves_the_image_to_it():
    """Between Gaussians of one width the ODE carries an image x to x + mu' - mu."""
    sampler = Sampler(wide(mixture().schedule), [], Euler(), 60)
    inverted = invert(sampler, IMAGE, 0, iterations=12)
    x = sampler.sample(1, x=inverted.x, t=inverted.t).x
    torch.testing.assert_close(x, IMAGE + 0.9, rtol=0, atol=2e-3)


def test_a_full_controller_is_the_noise_that_sdedit_adds(schedule):
    sampler = Sampler(wide(schedule), [SDEdit(IMAGE, 0.7)], num_inference_steps=10)
    plain = Sampler(wide(schedule), num_inference_steps=10)
    inverted = invert(plain, IMAGE, strength=0.7, controller=1.0, seed=4)
    started = {}

    class Look:
        @hookimpl(trylast=True)
        def start(self, state):
            started["x"], started["t"] = state.x, state.t

    sampler.replace(plugins=[*sampler.plugins, Look()]).sample(seeds=[4])
    torch.testing.assert_close(inverted.x, started["x"])
    assert inverted.t == started["t"]


def test_the_pull_returns_the_image_or_leaves_the_run_alone(schedule):
    backend = wide(schedule)
    whole = Sampler(backend, [CFG(3.0), RFInversion(IMAGE, 1.0, (0, 1))], Euler(), 8)
    torch.testing.assert_close(whole.sample(1, seeds=[0]).x, IMAGE)
    none = Sampler(backend, [CFG(3.0), RFInversion(IMAGE, 0.0)], Euler(), 8).sample(1)
    plain = Sampler(backend, [CFG(3.0)], Euler(), 8).sample(1)
    torch.testing.assert_close(none.x, plain.x)
    assert none.stats.rows == plain.stats.rows


def test_the_pull_is_the_papers_controlled_velocity():
    """(1 - eta) v + eta (y - x) / (1 - t) on a flow, whose v is x_0 - noise."""
    backend, x = wide(mixture().schedule), torch.randn(1, 1, 8, 8, dtype=torch.float64)
    v = Sampler(backend).denoise(x, 0.2, 1).prediction
    pulled = Sampler(backend, [RFInversion(IMAGE, 0.6)]).denoise(x, 0.2, 1).prediction
    torch.testing.assert_close(pulled, 0.4 * v + 0.6 * (IMAGE - x) / 0.8)
    free = Sampler(backend, [RFInversion(IMAGE, 0.6)]).denoise(x, 0.5, 1).prediction
    torch.testing.assert_close(free, Sampler(backend).denoise(x, 0.5, 1).prediction)


def test_a_stronger_pull_reconstructs_better():
    """The paper's pair, a controlled inversion and a controlled run, with another condition."""
    errors = []
    for eta in (0.0, 0.5, 0.9):
        sampler = Sampler(
            wide(mixture().schedule), [RFInversion(IMAGE, eta, (0.3, 1))], Euler(), 20
        )
        inverted = invert(Sampler(sampler.backend, [], Euler(), 20), IMAGE, 0, controller=0.5)
        x = sampler.sample(1, x=inverted.x, t=inverted.t).x
        errors.append(float((x - IMAGE).abs().mean()))
    assert errors[0] > 1.2 * errors[1] > 1.44 * errors[2]


def test_one_image_per_seed_and_views():
    images = torch.cat([IMAGE, -IMAGE])
    views = Anagram({"identity": 0, "rotate_180": 1})
    sampler = Sampler(
        wide(mixture().schedule), [views, RFInversion(images, 1.0, (0, 1))], Euler(), 4
    )
    torch.testing.assert_close(sampler.sample(seeds=[0, 1]).x, images)
    inverted = invert(Sampler(sampler.backend, [], Euler(), 9), images, 0, iterations=30)
    alone = invert(Sampler(sampler.backend, [], Euler(), 9), images[1:], 0, iterations=30)
    torch.testing.assert_close(inverted.x[1:], alone.x)


def test_an_image_of_no_information_keeps_its_noise():
    """Over IdentityBackend every estimate is x itself, so that nothing is guessed."""
    backend = IdentityBackend((1, 8, 8))
    inverted = invert(Sampler(backend, num_inference_steps=5), torch.zeros(1, 8, 8))
    assert inverted.x.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "invert: iterations"),
        ({"controller": 1.5}, "invert: controller must be in"),
        ({"strength": 0.01}, "invert: strength=0.01 leaves none of the 5 steps"),
        ({"strength": 2.0}, "invert: strength must be in"),
    ],
)
def test_impossible_inversions_raise(options, message):
    with pytest.raises(ValueError, match=message):
        invert(Sampler(mixture(), num_inference_steps=5), IMAGE, **options)


def test_impossible_pulls_raise():
    with pytest.raises(ValueError, match="RFInversion: eta"):
        RFInversion(IMAGE, 1.1)
    with pytest.raises(ValueError, match="RFInversion: levels"):
        RFInversion(IMAGE, 0.5, (0.9, 0.1))
    with pytest.raises(ValueError, match="RFInversion: image"):
        Sampler(mixture(), [RFInversion(torch.zeros(1, 4, 4))])


@pytest.mark.parametrize(
    "wrong",
    [{"sampler": 3}, {"seed": None}, {"seed": 10**30}, {"fit": "x"}, {"iterations": 10**30}],
)
def test_bad_arguments_of_invert_raise(wrong):
    given = {"sampler": Sampler(mixture()), "image": torch.zeros(1, 8, 8)} | wrong
    with pytest.raises((TypeError, ValueError), match=f"invert: {next(iter(wrong))} must be"):
        invert(**given)
