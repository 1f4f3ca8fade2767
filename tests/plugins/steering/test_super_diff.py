"""SuperDiff against closed forms: mixtures (OR), planes of equal density (AND), and the paper's
Ito estimator."""

import math

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st

import composer
from composer import UNCONDITIONAL, Sampler, hookimpl
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend, check_stack
from composer.testing.reads import Reads
from composer_plugins import (
    CFG,
    AdamsBashforth,
    Adaptive,
    Anagram,
    FeynmanKac,
    Inpaint,
    Langevin,
    Spaced,
    SuperDiff,
    Timesteps,
    UniPC,
)
from composer_plugins.steering.densities import reverse_of

STD = 0.25  # a float32, as the backend holds it


def gaussians(count=3, std=STD, shape=(1, 4, 4), **options):
    """Gaussians of one standard deviation about random means: conditions 0, 1, ..."""
    generator = torch.Generator().manual_seed(3)
    means = torch.rand((count, *shape), generator=generator, dtype=torch.float64) * 2 - 1
    return GaussianMixtureBackend(means, [std] * count, **options)


def followed(state, plugin):
    """What the plugin carries at its one place in a stack."""
    (place,) = (v for k, v in state.carried.items() if isinstance(k, tuple) and k[0] is plugin)
    return place


def exact(backend, x, t, conditions):
    """log q_i(x_t) (B, N) up to a shared number, in closed form."""
    alpha, sigma = backend.schedule.at(t)
    gaps = x[:, None] - alpha * backend.means[conditions]
    variance = (alpha * backend.stds[0]) ** 2 + sigma**2
    found = -gaps.square().flatten(2).sum(-1) / (2 * variance)
    return found - found.mean(1, keepdim=True)


@pytest.mark.parametrize("solver", [DDPM(), DDIM(1.0)])
@pytest.mark.parametrize("rule", ["and", "or"])
def test_the_densities_of_gaussians_are_exact_at_every_step(rule, solver):
    """Whatever the number of steps: Bayes' rule with the exact reverse transition."""
    backend, plugin = gaussians(), SuperDiff([0, 1, 2], rule, data_std=STD)
    seen = 0
    for state in Sampler(backend, [plugin], solver, 5).stream(seeds=[0, 1, 2]):
        place = followed(state, plugin)
        expected = exact(backend, place.x, place.t, [0, 1, 2])
        torch.testing.assert_close(place.log_density, expected, rtol=1e-8, atol=1e-8)
        seen += 1
    assert seen == 5
    assert expected.abs().max() > 1e-3 or rule == "and"


def test_or_is_the_mixture():
    """At temperature 1 the sample is the unconditional one of the mixture itself, priors and all,
    from the same noise: an independent model of the same density."""
    weights = [0.5, 0.25, 0.25]
    backend = gaussians(weights=weights)
    plugin = SuperDiff([0, 1, 2], "or", priors=weights, data_std=STD)
    ours = Sampler(backend, [plugin], DDPM(), 12).sample(seeds=range(6)).x
    plain = Sampler(backend, [], DDPM(), 12).sample(UNCONDITIONAL, range(6)).x
    torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-8)
    nearest = (ours[:, None] - backend.means).square().flatten(2).sum(-1).argmin(1)
    assert len(nearest.unique()) > 1  # else any one condition would do


def test_a_low_temperature_follows_the_likeliest_and_a_high_one_the_mean():
    backend = gaussians()

    def weights(temperature):
        plugin = SuperDiff([0, 1, 2], "or", temperature, data_std=STD)
        *_, state = Sampler(backend, [plugin], DDPM(), 8).stream(seeds=range(4))
        return (followed(state, plugin).log_density / temperature).softmax(1).max(1).values

    assert weights(1e-3).min() > 0.999
    torch.testing.assert_close(weights(1e9), torch.full((4,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("steps", [6, 40])
def test_and_ends_where_all_are_equally_likely(steps):
    """The conditions' means have a set of points of equal density; the last step, which adds no
    noise, ends on it. The plain mean of scores is far from it."""
    backend = gaussians(std=0.5)
    seeds = range(8)

    def unequal(plugins):
        x = Sampler(backend, plugins, DDPM(), steps).sample(seeds=seeds).x
        return exact(backend, x, backend.schedule.times(steps)[-1], [0, 1, 2]).abs().max(1).values

    assert unequal([SuperDiff([0, 1, 2], data_std=0.5)]).max() < 1e-8
    identities = Anagram({"identity": 0, composer.transforms.Composed(): 1})
    assert unequal([identities]).median() > 1


def test_and_within_the_set_of_equal_density_has_the_gaussian_law():
    """Two Gaussians N(+-m, S^2 I): on the plane <x, m> = 0 the product and each density agree, and
    the sample there is N(0, v I), v the solver's own variance for one Gaussian about 0.

    40 seeds of 63 directions, 2520 numbers: their variance has a relative standard error of 2.8 %,
    five of them are 14 % (failure by chance 6e-7).
    """
    mean = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    backend = GaussianMixtureBackend(torch.cat([mean, -mean, 0 * mean]), [STD] * 3)
    run = Sampler(backend, [SuperDiff([0, 1], data_std=STD)], DDPM(), 60)
    x = run.sample(seeds=range(40)).x.flatten(1)
    assert x.mean(1).abs().max() < 1e-8  # the direction of m
    single = Sampler(backend, [], DDPM(), 60).sample(2, seeds=range(40)).x.flatten(1)
    inside = single - single.mean(1, keepdim=True)
    variance = x.square().sum() / (63 * 40)
    assert float(variance) == pytest.approx(float(inside.square().sum() / (63 * 40)), rel=0.01)
    assert float(variance) == pytest.approx(STD**2, rel=0.14 + 0.05)  # and the solver's bias


@given(st.integers(0, 2**31), st.sampled_from([FlowSchedule(), DiscreteSchedule.linear()]))
def test_short_steps_are_the_papers_ito_estimator(seed, schedule):
    """d log q = <dx, s> + <f - g^2 s / 2, s> dtau, theorem 1, for its linear f and g: the
    difference of two conditions over one step of 1e-6 of the clock, to a thousandth."""
    generator = torch.Generator().manual_seed(seed)
    t = schedule.time_at(0.5)
    step = -0.01 if isinstance(schedule, DiscreteSchedule) else 1e-5
    s = t + step
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.at(t), schedule.at(s)
    x, *clean = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    dtau = 1.0
    f = -(alpha_s - alpha_t) / alpha_t  # forward in noise, over the step: dx = f x
    g2 = (sigma_t**2 - sigma_s**2) - 2 * f * sigma_t**2
    scores = [-(x - alpha_t * x0) / sigma_t**2 for x0 in clean]
    drift = -f * x + g2 * (scores[0] + scores[1]) / 2
    dx = drift * dtau + math.sqrt(g2) * torch.randn(16, generator=generator, dtype=torch.float64)
    ito = [(dx @ score) + (f * x - g2 / 2 * score) @ score for score in scores]

    reverse = reverse_of(schedule, t, s, data_std=STD)
    ours = [
        -(x + dx - reverse.of_x0 * x0 - reverse.of_x * x).square().sum() / (2 * reverse.variance)
        for x0 in clean
    ]
    assert float(ours[0] - ours[1]) == pytest.approx(float(ito[0] - ito[1]), rel=2e-3, abs=2e-4)


def test_views_are_readings_too():
    """AND over views: both readings of the anagram are equally likely at the end."""
    backend = gaussians(2, shape=(1, 4, 4))
    plugin = SuperDiff({"identity": 0, "rotate_180": 1}, data_std=STD)
    x = Sampler(backend, [plugin], DDPM(), 10).sample(seeds=range(4)).x
    turned = x.flip(-1, -2)
    own = (x - backend.means[0]).square().sum((1, 2, 3))
    other = (turned - backend.means[1]).square().sum((1, 2, 3))
    torch.testing.assert_close(own, other)


@settings(max_examples=8)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=3, unique=True))
def test_an_image_depends_on_its_own_seed_alone_also_among_candidates(seeds):
    """The log densities move with their images when FeynmanKac copies some."""
    stack = [FeynmanKac(lambda x: x.flatten(1).sum(1), 20.0, 4), SuperDiff([0, 1], data_std=STD)]
    sampler = Sampler(gaussians(), stack, DDPM(), 6)
    together = sampler.sample(seeds=seeds).x
    alone = torch.cat([sampler.sample(seeds=[seed]).x for seed in seeds])
    torch.testing.assert_close(together, alone)


def test_what_is_carried_follows_copies():
    backend, plugin = gaussians(), SuperDiff([0, 1, 2], "or", data_std=STD)
    stack = [FeynmanKac(lambda x: x.flatten(1).sum(1), 40.0, 6), plugin]
    copies = 0
    for state in Sampler(backend, stack, DDPM(), 8).stream(seeds=[0, 1]):
        place = followed(state, plugin)
        copies += len(place.x) - len(place.x.flatten(1).unique(dim=0))
        expected = exact(backend, place.x, place.t, [0, 1, 2])
        torch.testing.assert_close(place.log_density, expected, rtol=1e-7, atol=1e-7)
    assert copies > 0


@pytest.mark.parametrize("rule", ["and", "or"])
def test_it_obeys_the_law(rule):
    check_stack([SuperDiff([1, 2, 3], rule)])
    check_stack([SuperDiff({"identity": 1, "flip": 2}, rule), CFG(2.0)])


def test_it_nests_and_costs_a_row_a_reading():
    backend = mixture()
    nested = Anagram({"identity": SuperDiff([0, 1]), "rotate_180": SuperDiff([2, 3], "or")})
    stats = Sampler(backend, [nested], DDPM(), 4).sample(seeds=[0, 1]).stats
    assert (stats.calls, stats.rows) == (4, 4 * 2 * 4)
    around = Sampler(backend, [CFG(2.0), SuperDiff([0, 1])], DDPM(), 4).sample()
    assert (around.stats.calls, around.stats.rows) == (4, 4 * 3)


def test_one_step_denoising_has_no_way_behind_it():
    """The weights are those of equal log densities: of two, a half each."""
    backend = mixture()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    both = Sampler(backend, [SuperDiff([0, 1])], DDPM()).denoise(x, 0.5).x0
    parts = [Sampler(backend).denoise(x, 0.5, c).x0 for c in (0, 1)]
    torch.testing.assert_close(both, (parts[0] + parts[1]) / 2)


class _Longer:
    """A plan that jumps back."""

    @hookimpl
    def start(self, state):
        state.times = [0.0, 0.25, 0.5, 0.25, 0.75, 1.0]


@pytest.mark.parametrize(("solver", "probes"), [(DDPM(), 0), (Heun(), 2)])
@pytest.mark.parametrize("rule", ["and", "or"])
def test_densities_and_weights_read_nothing_back(rule, solver, probes):
    run = Sampler(mixture(), [SuperDiff([0, 1, 2], rule, probes=probes)], solver, 4)
    with Reads() as reads:
        for _ in run.stream(seeds=[0, 1]):
            pass
    assert reads.total <= 1  # at the end of the run


def test_a_stack_that_breaks_the_way_raises():
    backend, plugin = mixture(), SuperDiff([0, 1])
    for solver in (None, Euler(), DDIM(0.5)):
        with pytest.raises(ValueError, match=r"solver must draw the noise .* Use solver=DDPM\(\)"):
            Sampler(backend, [plugin], solver)
    with pytest.raises(ValueError, match="cannot be combined with Langevin"):
        Sampler(backend, [plugin, Langevin()], DDPM())
    with pytest.raises(ValueError, match="the noise must fall from one estimate to the next"):
        Sampler(backend, [plugin, _Longer()], DDPM(), 4).sample()
    with pytest.raises(ValueError, match="probes must be 0 with DDPM, got 1"):
        Sampler(backend, [SuperDiff([0, 1], probes=1)], DDPM())
    for solver in (
        AdamsBashforth(2),
        DPMSolverPP(),
        Spaced(UniPC()),
        Timesteps([0.0, 0.5], UniPC()),
    ):
        with pytest.raises(ValueError, match='solver of the rule "and" must step by the present'):
            Sampler(backend, [SuperDiff([0, 1], probes=1)], solver, 2)
        Sampler(backend, [SuperDiff([0, 1], "or", probes=1)], solver, 2)
    for solver in (AdamsBashforth(1), Spaced(Heun()), DDIM()):
        Sampler(backend, [SuperDiff([0, 1], probes=1)], solver)
    Sampler(backend, [plugin], Spaced(DDPM()))
    with pytest.raises(ValueError, match="densities of earlier steps must be carried to step 1"):
        Sampler(backend, [SuperDiff([0, 1], "or", probes=1)], Adaptive(), 2).sample()


def test_two_places_of_one_object_are_followed_apart():
    backend, plugin = gaussians(), SuperDiff([0, 1, 2], data_std=STD)
    views = {"identity": None, "flip": None}
    one, two = (
        Sampler(backend, [Anagram(views), *inner], DDPM(), 4).sample(seeds=[1]).x
        for inner in ([plugin], [Anagram({"identity": plugin})])
    )
    torch.testing.assert_close(one, two)
    for state in Sampler(backend, [Anagram(views), plugin], DDPM(), 4).stream(seeds=[1]):
        places = [place for key, place in state.carried.items() if key[0] is plugin]
        assert len(places) == 2
        for place in places:
            expected = exact(backend, place.x, place.t, [0, 1, 2])
            assert torch.isfinite(place.log_density).all()
            if state.step == 0:
                torch.testing.assert_close(place.log_density, 0 * expected)


# By divergences, under deterministic solvers


def unequal(**options):
    """Gaussians of standard deviations that differ, so that the estimator has something to do."""
    even = gaussians(**options)
    return GaussianMixtureBackend(even.means, [0.2, 0.3, 0.5], schedule=even.schedule)


def exact_of_each(backend, x, t):
    """log q_i(x_t) (B, N) up to a shared number, of components of any width."""
    alpha, sigma = backend.schedule.at(t)
    variance = (alpha * torch.tensor(backend.stds).double()) ** 2 + sigma**2
    gaps = (x[:, None] - alpha * backend.means).square().flatten(2).sum(-1)
    found = -gaps / (2 * variance) - x[0].numel() / 2 * variance.log()
    return found - found.mean(1, keepdim=True)


SOLVERS = [Euler(), DDIM(), DDIM(0.5), Heun(), DPMSolverPP(), AdamsBashforth(3), UniPC()]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("probes", [1, None])
def test_divergences_of_gaussians_of_one_width_are_exact_under_every_solver(solver, probes):
    """Their divergences agree, so a single direction is enough; the fit is the density itself."""
    rules = ["or"] if getattr(solver, "multistep", False) else ["or", "and"]
    for rule in rules:
        backend, plugin = gaussians(), SuperDiff([0, 1, 2], rule, data_std=STD, probes=probes)
        seen = 0
        for state in Sampler(backend, [plugin], solver, 5).stream(seeds=[0, 1]):
            place = followed(state, plugin)
            expected = exact(backend, place.x, place.t, [0, 1, 2])
            torch.testing.assert_close(place.log_density, expected, rtol=1e-8, atol=1e-8)
            seen += 1
        assert seen == 5
        ends = exact(backend, state.x, backend.schedule.times(5)[-1], [0, 1, 2]).abs().max()
        assert ends < 1e-8 if rule == "and" else ends > 1


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP()], ids=repr)
def test_divergences_of_gaussians_of_all_widths_are_of_second_order(solver):
    """Twice as many steps make a quarter of the error. One direction gives these divergences
    exactly, for x_0 given x is as wide in each."""
    backend, plugin = unequal(), SuperDiff([0, 1, 2], "or", data_std=STD, probes=1)

    def error(steps):
        worst = 0.0
        for state in Sampler(backend, [plugin], solver, steps).stream(seeds=range(4)):
            place = followed(state, plugin)
            gap = place.log_density - exact_of_each(backend, place.x, place.t)
            worst = max(worst, float(gap.abs().max()))
        return worst

    errors = [error(steps) for steps in (32, 64, 128)]
    assert errors[1] < errors[0] / 3.3
    assert errors[2] < errors[1] / 3.3
    assert errors[2] < 0.01


def test_and_over_a_flow_ends_where_readings_of_all_widths_are_equally_likely():
    """The rest falls with the steps."""
    backend = unequal()

    def ends(steps):
        plugin = SuperDiff([0, 1, 2], data_std=STD, probes=1)
        x = Sampler(backend, [plugin], Euler(), steps).sample(seeds=range(4)).x
        return float(exact_of_each(backend, x, backend.schedule.times(steps)[-1]).abs().max())

    rest = [ends(steps) for steps in (16, 32, 64)]
    assert rest[2] < rest[1] / 3 < rest[0] / 9
    assert rest[2] < 0.05


def test_or_over_a_flow_is_the_mixture():
    weights = [0.5, 0.25, 0.25]
    backend = gaussians(weights=weights)
    plugin = SuperDiff([0, 1, 2], "or", priors=weights, data_std=STD, probes=1)
    ours = Sampler(backend, [plugin], Heun(), 12).sample(seeds=range(6)).x
    plain = Sampler(backend, [], Heun(), 12).sample(UNCONDITIONAL, range(6)).x
    torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-8)
    nearest = (ours[:, None] - backend.means).square().flatten(2).sum(-1).argmin(1)
    assert len(nearest.unique()) > 1  # else any one condition would do


@pytest.mark.parametrize("probes", [None, 2])
def test_a_reading_may_be_a_mixture(probes):
    """Whose divergence no Gaussian has: the exact trace is of second order, and two directions in
    place of four pixels are off by their variance."""
    generator = torch.Generator().manual_seed(2)
    means = torch.rand((3, 1, 2, 2), generator=generator, dtype=torch.float64) * 2 - 1
    backend = GaussianMixtureBackend(means, [0.3, 0.4, 0.5])
    plugin = SuperDiff([0, UNCONDITIONAL], data_std=STD, probes=probes)

    def density(x, t):
        alpha, sigma = backend.schedule.at(t)
        variance = (alpha * torch.tensor(backend.stds).double()) ** 2 + sigma**2
        gaps = (x[:, None] - alpha * means).square().flatten(2).sum(-1)
        each = -gaps / (2 * variance) - x[0].numel() / 2 * variance.log()
        both = torch.stack([each[:, 0], each.logsumexp(1) - math.log(3)], 1)
        return both - both.mean(1, keepdim=True)

    def error(steps):
        worst = 0.0
        for state in Sampler(backend, [plugin], Euler(), steps).stream(seeds=range(4)):
            place = followed(state, plugin)
            worst = max(worst, float((place.log_density - density(place.x, place.t)).abs().max()))
        return worst

    errors = [error(steps) for steps in (30, 60, 120)]
    if probes is None:
        assert errors[2] < errors[1] / 3 < errors[0] / 9
        assert errors[2] < 2e-3
    else:
        assert 0.01 < errors[2] < 0.5


def test_anagrams_over_a_flow_have_equally_likely_readings():
    backend = gaussians(2, shape=(1, 4, 4))
    plugin = SuperDiff({"identity": 0, "rotate_180": 1}, data_std=STD, probes=1)
    x = Sampler(backend, [plugin], Euler(), 10).sample(seeds=range(4)).x
    own = (x - backend.means[0]).square().sum((1, 2, 3))
    other = (x.flip(-1, -2) - backend.means[1]).square().sum((1, 2, 3))
    torch.testing.assert_close(own, other)


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=repr)
def test_divergences_cost_two_rows_a_probe_in_the_same_call(solver):
    calls = {Euler: 4, Heun: 7}[type(solver)]
    plugin = SuperDiff([0, 1], probes=3)
    stats = Sampler(mixture(), [plugin, CFG(2.0)], solver, 4).sample(seeds=[0, 1]).stats
    assert (stats.calls, stats.rows) == (calls, calls * 2 * 3 * (1 + 2 * 3))


def test_directions_are_each_image_s_own():
    backend, plugin = unequal(), SuperDiff([0, 1, 2], "or", probes=1)
    sampler = Sampler(
        backend, [FeynmanKac(lambda x: x.flatten(1).sum(1), 20.0, 3), plugin], None, 5
    )
    together = sampler.sample(seeds=[5, 9]).x
    alone = torch.cat([sampler.sample(seeds=[seed]).x for seed in (5, 9)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([1],), TypeError, "two or more conditions"),
        ((3,), TypeError, "readings must be a list of conditions"),
        (([1, None],), TypeError, "none of them None"),
        (([1, 2], "xor"), ValueError, "rule must be one of"),
        (([1, 2], "or", 0.0), ValueError, "temperature must be a positive"),
        (([1, 2], "or", 1.0, [0.5]), ValueError, "priors must be 2"),
        (([1, 2], "or", 1.0, [0.5, -1]), ValueError, "priors must be a positive"),
        (([1, 2], "or", 1.0, None, 0.0), ValueError, "data_std must be a positive"),
        (([1, 2], "or", 1.0, None, 0.5, -1), ValueError, "probes must be an integer of at least 0"),
    ],
)
def test_bad_super_diffs_raise(arguments, error, words):
    with pytest.raises(error, match=words):
        SuperDiff(*arguments)


def test_it_is_written_into_recipes():
    backend = composer.load_backend("mnist")
    plugin = SuperDiff({"identity": 6, "rotate_180": 9}, "or", 2.0, [0.4, 0.6])
    result = Sampler(backend, [plugin, CFG(3.0)], DDPM(), 2).sample()
    again = Sampler.from_recipe(result.recipe).sample().x
    assert torch.equal(again, result.x)


def test_inpainting_beside_it_keeps_the_known_pixels():
    image, mask = torch.zeros(1, 8, 8, dtype=torch.float64), torch.ones(8, 8)
    mask[:, :4] = 0
    x = Sampler(mixture(), [Inpaint(image, mask), SuperDiff([0, 1])], DDPM(), 6).sample().x
    assert torch.equal(x[..., :4], image[None, ..., :4])
