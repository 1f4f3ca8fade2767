"""LanPaint: near the known conditional where replacing the known region is biased."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from composer import Sampler
from composer.authoring import KnownRegion
from composer.schedules import DiscreteSchedule
from composer.solvers import DPMSolverPP
from composer.testing import GaussianMixtureBackend
from composer_plugins import CFG, Anagram, Inpaint, Langevin, LanPaint, Particles
from composer_plugins.editing.lanpaint import _relaxed

KNOWN, STD, MEANS = 0.15, 0.3, ((-0.3, -0.8), (0.3, 0.8))
PAIR, RIGHT = torch.tensor([[[KNOWN, 0.0]]], dtype=torch.float64), torch.tensor([[0.0, 1.0]])
SAMPLES = 500


def conditional(u):
    """P(unknown <= u | known): each component's Gaussian, weighed by how well it explains known."""
    weights = [math.exp(-((KNOWN - known) ** 2) / (2 * STD**2)) for known, _ in MEANS]
    parts = [stats.norm.cdf(u, unknown, STD) for _, unknown in MEANS]
    return sum(w * part for w, part in zip(weights, parts, strict=True)) / sum(weights)


def distance(plugin, steps):
    """Kolmogorov-Smirnov, of samples to the conditional."""
    means = torch.tensor(MEANS, dtype=torch.float64).reshape(2, 1, 1, 2)
    sampler = Sampler(GaussianMixtureBackend(means, [STD, STD]), [plugin], None, steps)
    x = sampler.sample(seeds=range(SAMPLES)).x[:, 0, 0]
    assert (x[:, 0] == KNOWN).all()
    return stats.kstest(x[:, 1].numpy(), conditional).statistic


def test_walks_come_near_the_conditional_where_replacing_does_not():
    """Two components, told apart by a known pixel that favours one by e to 1.

    500 right samples are farther than sqrt(log(2 / 1e-5) / 1000) = .11 from their distribution
    with probability 1e-5 at most (Dvoretzky, Kiefer & Wolfowitz). Replacing the known pixel, plain
    or noised, leaves too many samples in the wrong component at twice that distance.
    """
    bound = math.sqrt(math.log(2 / 1e-5) / (2 * SAMPLES))
    assert all(
        distance(Inpaint(PAIR, RIGHT, mode), 20) > 1.5 * bound for mode in ("clean", "renoise")
    )
    few, many = (distance(LanPaint(PAIR, RIGHT, n, size=0.5), 10) for n in (1, 8))
    assert many < bound
    assert few > many + 0.03


def velocity_of(plugin, x, backend, t):
    """The walk without its noise, as a velocity in units of sigma^2."""
    estimate = Sampler(backend).denoise(x, t, 1)
    image, mask = plugin.image[None], plugin.mask.double()
    state = SimpleNamespace(
        t=t,
        randn=lambda: torch.zeros_like(x),
        memory={plugin: KnownRegion(image, mask, image, mask, "LanPaint")},
        each=lambda image, owner: image,
    )
    return (plugin.walk(state, estimate) - x) / plugin.size, estimate


@given(st.floats(0, 20), st.floats(0.05, 0.95), st.integers(0, 99))
def test_a_short_walk_follows_the_big_score(guidance, t, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    mask = torch.rand(8, 8, generator=generator).round()
    backend = mixture()
    plugin = LanPaint(backend.means[3], mask, size=1e-7, guidance=guidance)
    velocity, estimate = velocity_of(plugin, x, backend, t)
    alpha, sigma = backend.schedule.at(t)
    score = -estimate.noise / sigma
    towards = (alpha * plugin.image - x) / sigma**2
    known = (1 + guidance) * towards - guidance * score
    expected = sigma**2 * torch.where(mask == 0, known, score)
    torch.testing.assert_close(velocity, expected, rtol=1e-4, atol=1e-4)


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0.1, 3))
def test_relaxation_is_a_flow_and_keeps_its_own_distribution(a, b, spread):
    """Two times after each other are their sum; N(centre, s^2) stays so."""
    x, centre = torch.tensor([0.7, -2.0]).double(), torch.tensor([0.1, 0.4]).double()
    zero = torch.zeros(2).double()
    twice = _relaxed(_relaxed(x, centre, zero, a), centre, zero, b)
    torch.testing.assert_close(twice, _relaxed(x, centre, zero, a + b))
    deviation = _relaxed(centre + spread, centre, zero, a) - centre
    fresh = _relaxed(centre, centre, zero + spread, a) - centre
    torch.testing.assert_close(deviation**2 + fresh**2, zero + spread**2)


IMAGE = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 8, 8)
HALF = torch.eye(8)


@pytest.mark.parametrize("solver", [None, DPMSolverPP()])
@settings(max_examples=20)
@given(seed=st.integers(0, 99))
def test_the_known_region_is_exact_at_the_end(solver, seed):
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(seed)).round()
    backend = mixture(DiscreteSchedule.linear(), "v")
    x = Sampler(backend, [LanPaint(IMAGE, mask, 2), CFG(2.0)], solver, 4).sample(1, seeds=[0, 1]).x
    assert torch.equal(x[..., mask == 0], IMAGE[..., mask == 0].expand(2, 1, -1))
    assert (x[..., mask == 1] != IMAGE[..., mask == 1]).all()


def test_without_guidance_the_known_region_is_the_noised_image():
    """Also after walks: its noise has mean 0 and spread 1, within .12 but for one case in 10^6."""
    backend = mixture(shape=(1, 64, 64))
    image, mask = torch.full((1, 64, 64), 0.5, dtype=torch.float64), torch.zeros(64, 64)
    mask[:, 32:] = 1
    sampler = Sampler(backend, [LanPaint(image, mask, 2, guidance=0.0)], num_inference_steps=5)
    for state in sampler.stream(1):
        alpha, sigma = backend.schedule.at(state.t)
        if sigma:
            noise = (state.x[..., :32] - alpha * 0.5) / sigma
            assert abs(noise.mean()) < 0.12
            assert abs(noise.std() - 1) < 0.12


def test_walks_are_counted_and_kept_within_the_interval():
    """Noise levels after the steps: .83, .67, .5, .33, .17, 0, of which three are within."""
    plugin = LanPaint(IMAGE, torch.eye(8), 2, interval=(0.3, 0.7))
    spent = Sampler(mixture(), [plugin], num_inference_steps=6).sample(1).stats
    assert spent.calls == 6 + 3 * 2


def brightness(x):
    return x.clamp(-1, 1).flatten(1).sum(1)


def test_it_follows_several_candidates_a_seed():
    """One of three is the plain sample, so the best is no worse; each keeps its seed's image."""
    images, off = torch.stack([IMAGE, -IMAGE]), HALF == 0
    stack = [LanPaint(images, HALF, 1)]
    plain = Sampler(mixture(), stack, num_inference_steps=4).sample(1, seeds=[3, 4]).x
    for survivors in (((1, 3), (0, 1)), ((1, 3), (0.5, 2), (0, 1))):
        best = Particles(brightness, survivors)
        x = Sampler(mixture(), [best, *stack], num_inference_steps=4).sample(1, seeds=[3, 4]).x
        assert torch.equal(x[..., off], images[..., off])
        if len(survivors) == 2:
            assert (brightness(x) >= brightness(plain) - 1e-9).all()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: [LanPaint(3, HALF)], TypeError, "LanPaint: image must be"),
        (lambda: [LanPaint(IMAGE, HALF, 0)], ValueError, "steps must be an integer of at least 1"),
        (lambda: [LanPaint(IMAGE, HALF, size=0.0)], ValueError, "size must be a positive number"),
        (lambda: [LanPaint(IMAGE, HALF, guidance=-1.0)], ValueError, "at least 0, got -1.0"),
        (lambda: [LanPaint(IMAGE, HALF, interval=(1, 0))], ValueError, "interval must be"),
        (
            lambda: [LanPaint(IMAGE, torch.eye(9))],
            ValueError,
            "LanPaint: mask must have the backend's size 8x8",
        ),
        (
            lambda: [LanPaint(IMAGE[:, 1:], HALF)],
            ValueError,
            "LanPaint: image must have the backend's size 8x8",
        ),
        (lambda: [LanPaint(IMAGE, HALF), Langevin()], ValueError, "LanPaint and Langevin in one"),
        (
            lambda: [LanPaint(IMAGE, HALF), LanPaint(IMAGE, HALF)],
            ValueError,
            "two LanPaint in one stack",
        ),
        (
            lambda: [Anagram({"identity": 0, "flip": 1}, "alternate"), LanPaint(IMAGE, HALF)],
            ValueError,
            "LanPaint needs all views at each step, and Anagram",
        ),
    ],
)
def test_what_cannot_work_raises_when_built(make, error, sentence):
    with pytest.raises(error, match=sentence):
        Sampler(mixture(), make())
