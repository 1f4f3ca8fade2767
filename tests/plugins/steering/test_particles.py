"""Particles: the best of several candidates, each seed on its own."""

import pytest
import torch
from conftest import mixture
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from composer import Sampler, hookimpl
from composer.schedules import DiscreteSchedule
from composer.solvers import DDPM, DiffusersSolver, DPMSolverPP
from composer_plugins import CFG, Anagram, Inpaint, Langevin, SDEdit
from composer_plugins.steering.feynman_kac import FeynmanKac
from composer_plugins.steering.particles import Particles


def darkness(x):
    return -x.flatten(1).sum(1)


def test_one_particle_is_the_plain_sampler():
    backend = mixture()
    plain = Sampler(backend, solver=DDPM(), num_inference_steps=4).sample(seeds=[3, 4]).x
    one = Sampler(backend, [Particles(darkness, ((1, 1), (0, 1)))], DDPM(), 4)
    assert torch.equal(one.sample(seeds=[3, 4]).x, plain)


@given(st.integers(2, 5), st.sampled_from([DDPM(), DPMSolverPP()]))
def test_the_best_candidate_is_taken_and_the_first_is_the_plain_image(count, solver):
    backend = mixture()
    seen = []

    def score(x):
        seen.append(x)
        return darkness(x)

    plugin = Particles(score, ((1, count), (0, 1)))
    best = Sampler(backend, [plugin], solver, 4).sample(seeds=[5, 6])
    plain = Sampler(backend, [], solver, 4).sample(seeds=[5, 6]).x
    candidates = seen[-1]  # the first was a probe, before any model call
    assert best.seeds == (5, 6)
    assert len(candidates) == 2 * count
    torch.testing.assert_close(candidates[::count], plain.clamp(-1, 1))
    expected = darkness(candidates).reshape(2, count).max(1).values
    torch.testing.assert_close(darkness(best.x.clamp(-1, 1)), expected)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=4, unique=True))
def test_an_image_depends_on_its_own_seed_alone(seeds):
    plugin = Particles(darkness, ((1, 4), (0.6, 2), (0, 1)))
    sampler = Sampler(mixture(), [plugin, CFG(2.0)], DDPM(), 4)
    together = sampler.sample(1, seeds=seeds).x
    for k, seed in enumerate(seeds):
        torch.testing.assert_close(together[k : k + 1], sampler.sample(1, seeds=[seed]).x)


def test_the_numbers_of_survivors_are_kept_and_paid_for():
    plugin = Particles(darkness, ((1, 8), (0.5, 2), (0, 1)))
    sampler = Sampler(mixture(), [plugin], None, 4)
    sizes = [len(state.x) for state in sampler.stream(seeds=[1, 2, 3])]
    assert sizes == [24, 6, 6, 3]  # noise levels .75, .5, .25, 0
    assert sampler.sample(seeds=[1, 2, 3]).stats.rows == 24 + 24 + 6 + 6


@pytest.mark.parametrize("at", [0, 2])
def test_a_run_that_is_stopped_ends_with_one_image_a_seed(at):
    class Stop:
        @hookimpl
        def post_step(self, state):
            if state.step == at:
                state.stop()

    sampler = Sampler(mixture(), [Stop(), Particles(darkness)], None, 4)
    assert sampler.sample(seeds=[1, 2]).x.shape == (2, 1, 8, 8)


def test_it_works_with_solvers_that_remember_and_plugins_that_project():
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    image, mask = torch.zeros(1, 8, 8, dtype=torch.float64), torch.ones(8, 8)
    mask[:, :4] = 0
    plugin = Particles(darkness, ((1, 4), (0.7, 2), (0, 1)))
    for solver in (DPMSolverPP(), DiffusersSolver(DPMSolverMultistepScheduler())):
        views = Anagram({"identity": 0, "flip": 1})
        x = Sampler(backend, [plugin, Inpaint(image, mask), views], solver, 8).sample().x
        assert torch.equal(x[..., :4], torch.zeros(1, 1, 8, 4, dtype=torch.float64))


def test_the_best_of_k_has_the_distribution_of_a_maximum():
    """One Gaussian: the score, the sum of x, is normal, and F(best)^K is uniform.

    Kolmogorov-Smirnov at p > 1e-4 with fixed seeds; K - 1 in place of K is rejected at 1e-6.
    """
    from composer.testing import GaussianMixtureBackend

    count, pixels, std = 4, 4, 0.2
    backend = GaussianMixtureBackend(torch.zeros(1, 1, 2, 2, dtype=torch.float64), [std])
    plugin = Particles(lambda x: x.flatten(1).sum(1), ((1, count), (0, 1)))
    x = Sampler(backend, [plugin], num_inference_steps=10).sample(0, seeds=range(2000)).x
    # Over a Gaussian the solver multiplies the noise by one number, near std but not std.
    noise = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gain = (Sampler(backend, num_inference_steps=10).sample(0).x[0] / noise).mean()
    scores = x.flatten(1).sum(1) / (gain * pixels**0.5)
    quantile = stats.norm.cdf(scores.numpy())
    assert stats.kstest(quantile**count, "uniform").pvalue > 1e-4
    assert stats.kstest(quantile ** (count - 1), "uniform").pvalue < 1e-6


@pytest.mark.parametrize(
    ("survivors", "words"),
    [
        ((), "pairs"),
        (((1, 4),), "fall from 1 to 0"),
        (((1, 4), (0, 2)), "last number"),
        (((0.5, 4), (0, 1)), "fall from 1 to 0"),
        (((1, 2), (0.5, 4), (0, 1)), "must not rise"),
        (((1, 0), (0, 1)), "at least 1"),
        (((1, 4), (float("nan"), 2), (0, 1)), "finite"),
    ],
)
def test_bad_plans_raise(survivors, words):
    with pytest.raises(ValueError, match=words):
        Particles(darkness, survivors)


def test_bad_scores_raise_before_any_call():
    for score in ("darkness", Particles):
        with pytest.raises(TypeError, match="score must be a function"):
            Particles(score)
    for score, words in (
        (lambda x: x, "one number per image"),
        (lambda x: [0.0], "must return a tensor of one number per image, .* got list"),
        (lambda x: x.flatten(1).sum(1) / 0, "must return finite numbers"),
        (lambda x: x.view(3, 7), "score failed"),
    ):
        with pytest.raises(ValueError, match=words):
            Sampler(mixture(), [Particles(score)], None, 2)
    with pytest.raises(TypeError, match="survivors must be a list"):
        Particles(darkness, 5)


def test_a_start_from_an_image_holds_for_every_candidate():
    """Whichever stands first in the list."""
    image = torch.zeros(1, 8, 8, dtype=torch.float64)
    edit, plugin = SDEdit(image, 0.3), Particles(darkness, ((1, 4), (0, 1)))
    runs = (
        next(Sampler(mixture(), stack, None, 10).stream(1, [3])).estimate.x
        for stack in ([edit, plugin], [plugin, edit])
    )
    one, other = runs
    assert torch.equal(one, other)
    assert one.flatten(1).std(1).max() < 0.5  # sigma is .3; pure noise has 1


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_images_given_for_each_seed_go_with_their_seed(seed, count):
    image = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    mask = torch.ones(8, 8)
    mask[:4] = 0
    plugins = [Inpaint(image, mask), Particles(darkness, ((1, 4), (0.5, count), (0, 1)))]
    together = Sampler(mixture(), plugins, DDPM(), 4).sample(1, [seed, seed + 1]).x
    assert torch.equal(together[:, :, :4], image[:, :, :4])
    alone = [Inpaint(image[1:], mask), plugins[1]]
    torch.testing.assert_close(
        together[1:], Sampler(mixture(), alone, DDPM(), 4).sample(1, [seed + 1]).x
    )


def test_a_stop_in_the_middle_of_a_walk_leaves_one_image_a_seed():
    class Stop:
        @hookimpl
        def post_step(self, state):
            if state.step == 1:
                state.stop()

    stack = [Particles(darkness), Langevin(1), Stop()]
    assert len(Sampler(mixture(), stack, None, 4).sample(1, [1, 2]).x) == 2


@pytest.mark.parametrize(
    "plugin", [Particles(darkness), FeynmanKac(darkness, 1.0, 4)], ids=["particles", "feynman_kac"]
)
def test_a_stop_after_them_leaves_one_image_a_seed_too(plugin):
    class Stop:
        @hookimpl(trylast=True)
        def post_step(self, state):
            if state.step == 1:
                state.stop()

    for stack in ([Stop(), plugin], [plugin, Stop()]):
        assert len(Sampler(mixture(), stack, DDPM(), 4).sample(1, [1, 2]).x) == 2


def test_a_plugin_that_follows_several_and_never_selects_raises():
    class Twice:
        @hookimpl
        def start(self, state):
            state.select(torch.tensor([0, 0]))

    with pytest.raises(ValueError, match="ended with 2 images of 1 seeds"):
        Sampler(mixture(), [Twice()], None, 2).sample(1)


def test_images_become_copies_of_their_own_seed_s_only():
    class Mixing:
        @hookimpl
        def post_step(self, state):
            state.copy(torch.tensor([1, 0]))

    with pytest.raises(ValueError, match="rows of the image's own seed"):
        Sampler(mixture(), [Mixing()], None, 2).sample(1, [1, 2])


def test_schedulers_of_several_evaluations_raise():
    backend = mixture(DiscreteSchedule.linear(), "epsilon")
    for plugin in (Particles(darkness, ((1, 2), (0.5, 1), (0, 1))), Langevin(1)):
        with pytest.raises(ValueError, match="HeunDiscreteScheduler evaluates several times"):
            Sampler(backend, [plugin], DiffusersSolver(HeunDiscreteScheduler()), 8).sample(1)


def test_two_in_one_stack_raise():
    with pytest.raises(ValueError, match="two Particles in one stack"):
        Sampler(mixture(), [Particles(darkness), Particles(darkness)])
