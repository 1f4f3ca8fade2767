"""LatentAnagram: over an exact coder it is the Anagram of pixels; what it costs, what it raises."""

import dataclasses

import pytest
import torch
from conftest import mixture

from composer import Each, Plugin, Sampler, hookimpl
from composer.authoring import initial_noise
from composer.schedules import DiscreteSchedule
from composer.solvers import DDIM, DPMSolverPP, Euler
from composer.testing import OrthogonalCodecBackend, check_backend
from composer_plugins import CFG, Anagram, Inpaint, LaplacianPyramid, LatentAnagram, SDEdit
from composer_plugins.illusions.blends import BLENDS

SEEDS = [3, 8]
STEPS = 6
TWO = {"identity": 0, "rotate_180": 1}
VIEWS = [
    TWO,
    {"identity": 0, "rotate_180": 1, "negative": 2},
    {"rotate_cw": 2, "negative": 0, "skew": 3},
]


class Together(Plugin):
    """Start each trajectory at its view of the first one's noise, as pixels are seen."""

    def __init__(self, views):
        self.transforms = LatentAnagram(views).transforms

    @hookimpl
    def start(self, state):
        noise = state.backend.decode(state.x[:: len(self.transforms)])
        seen = torch.stack([view(noise) for view in self.transforms], 1)
        state.x = state.backend.encode_image(seen.flatten(0, 1))


def coded(**options):
    return OrthogonalCodecBackend(mixture(shape=(1, 8, 8), **options))


def first_noise(backend):
    """The pixels of the noise of each seed's first trajectory."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return backend.decode(initial_noise(generators, backend))


@pytest.mark.parametrize("views", VIEWS, ids=" ".join)
@pytest.mark.parametrize("guidance", [[], [CFG(3.0)]], ids=["plain", "CFG"])
@pytest.mark.parametrize(
    ("solver", "path"),
    [
        (Euler(), {}),
        (DDIM(), {"schedule": DiscreteSchedule.linear(), "prediction": "epsilon"}),
    ],
    ids=["Euler", "DDIM"],
)
def test_over_an_exact_coder_it_is_the_anagram_of_pixels(views, guidance, solver, path):
    backend = coded(**path)
    stack = [LatentAnagram(views), Together(views), *guidance]
    latent = Sampler(backend, stack, solver, STEPS).sample(seeds=SEEDS)
    pixel = Sampler(backend.inner, [Anagram(views), *guidance], solver, STEPS)
    expected = pixel.sample(seeds=SEEDS, x=first_noise(backend))
    torch.testing.assert_close(latent.x, expected.x, rtol=0, atol=1e-10)
    for count in ("calls", "rows"):
        assert getattr(latent.stats, count) == getattr(expected.stats, count)


def test_each_seed_has_its_own_conditions_and_is_as_alone():
    views = {"identity": Each([0, 1]), "negative": Each([2, 3])}
    together = Sampler(coded(), [LatentAnagram(views), CFG(2.0)], None, STEPS).sample(seeds=SEEDS)
    for place, seed in enumerate(SEEDS):
        own = {view: each.conditions[place] for view, each in views.items()}
        alone = Sampler(coded(), [LatentAnagram(own), CFG(2.0)], None, STEPS).sample(seeds=[seed])
        torch.testing.assert_close(together.x[place], alone.x[0], rtol=0, atol=1e-12)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Lossy(OrthogonalCodecBackend):
    """A coder that is not linear, and from which no image returns as it was."""

    def decode(self, z):
        return super().decode(z).tanh()

    def encode_image(self, x):
        return 0.9 * super().encode_image(x) + 0.1


class LossyMixture(Lossy):
    def evaluate(self, batch):
        """The exact model of the latents, whatever the coder."""
        return coded().evaluate(batch)


def lossy():
    return LossyMixture(mixture(shape=(1, 8, 8)))


def test_one_view_is_the_model_alone_over_any_coder():
    """z0' = E(p) + z0 - E(p): the residual gives back all that the coder loses."""
    plain, alone = (
        Sampler(lossy(), plugins, None, STEPS).sample(condition, seeds=SEEDS)
        for plugins, condition in (([], 1), ([LatentAnagram({"identity": 1})], None))
    )
    torch.testing.assert_close(alone.x, plain.x, rtol=0, atol=1e-12)


def test_the_clean_latents_are_those_of_the_equations():
    backend = lossy()
    views = LatentAnagram({"flip": 0, "negative": 1})
    z = torch.randn(
        2, *backend.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    t = 0.4
    model = Sampler(backend, [])
    z0 = [model.denoise(z[k : k + 1], t, condition=k).x0 for k in range(2)]
    p = [backend.decode(one) for one in z0]
    mean = (p[0].flip(-2) - p[1]) / 2
    expected = [
        backend.encode_image(seen) + z0[k] - backend.encode_image(p[k])
        for k, seen in enumerate((mean.flip(-2), -mean))
    ]
    found = Sampler(backend, [views]).denoise(z, t)
    torch.testing.assert_close(found.x0, torch.cat(expected), rtol=0, atol=1e-12)


def test_over_pixels_the_coder_is_the_identity():
    views = {"identity": 0, "negative": 1}
    backend = mixture()
    x = torch.randn(
        1, *backend.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    both = Sampler(backend, [LatentAnagram(views)]).denoise(torch.cat([x, -x]), 0.4).x0
    one = Sampler(backend, [Anagram(views)]).denoise(x, 0.4).x0
    torch.testing.assert_close(both, torch.cat([one, -one]), rtol=0, atol=1e-12)


# Time travel, and the last steps alone


class Planned(Plugin):
    """Another plan."""

    def __init__(self, times):
        self.times = times

    @hookimpl
    def start(self, state):
        state.times = self.times


@pytest.mark.parametrize("backend", [coded(), lossy()], ids=["exact", "lossy"])
def test_time_travel_of_one_view_is_the_model_on_the_plan_with_jumps(backend):
    """Of ten steps, the two before times 4, 6 and 8 are taken again."""
    times = Sampler(backend, [], num_inference_steps=10).times
    rounds = [place for turn in (4, 6, 8) for place in [turn - 2, turn - 1, turn]]
    plan = [*range(5), *rounds[:3], 5, 6, *rounds[3:6], 7, 8, *rounds[6:], 9, 10]
    stack = [LatentAnagram({"identity": 1}, travel=1)]
    travelled = Sampler(backend, stack, None, 10).sample(seeds=SEEDS)
    jumped = Sampler(backend, [Planned([times[place] for place in plan])], None, 10)
    expected = jumped.sample(1, seeds=SEEDS)
    torch.testing.assert_close(travelled.x, expected.x, rtol=0, atol=1e-10)
    assert travelled.stats.calls == expected.stats.calls == 10 + 3 * 2


@pytest.mark.parametrize("travel", [0, 1, 3])
@pytest.mark.parametrize("alone", [0.0, 0.35])
def test_what_travel_and_being_alone_cost(travel, alone):
    """Levels fall from 1 by a tenth a step. Turns are at .6, .4 and .2, or without levels at and
    below .35, which are the last three steps', at .6 and .4."""
    stack = [LatentAnagram(TWO, travel=travel, alone=alone), CFG(2.0)]
    stats = Sampler(coded(), stack, None, 10).sample(seeds=SEEDS).stats
    turns, last = (2, 3) if alone else (3, 0)
    together = 10 - last + 2 * travel * turns
    assert stats.calls == together + last
    assert stats.rows == len(SEEDS) * 2 * (2 * together + last)


@pytest.mark.parametrize("solver", [Euler(), DPMSolverPP()], ids=["Euler", "DPM++"])
def test_alone_the_first_view_goes_on_as_the_model_would(solver):
    views = {"rotate_cw": 2, "negative": 0}
    backend, together = lossy(), [LatentAnagram(views), CFG(2.0)]
    last = 0.5
    stream = Sampler(backend, together, Euler(), STEPS).stream(seeds=SEEDS)
    state = next(s for s in stream if backend.schedule.noise_level(s.t) <= last)
    rest = Sampler(backend, [CFG(2.0), Planned(state.times[state.position :])], Euler(), STEPS)
    expected = rest.sample(2, seeds=SEEDS, x=state.x[::2], t=state.t).x.rot90(1, (-2, -1))
    alone = [LatentAnagram(views, alone=last), CFG(2.0)]
    found = Sampler(backend, alone, Euler(), STEPS).sample(seeds=SEEDS).x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    # A solver that remembers the last estimate forgets the others', too.
    assert Sampler(backend, alone, solver, STEPS).sample(seeds=SEEDS).x.shape == found.shape


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"travel": -1}, "LatentAnagram: travel must be an integer of at least 0"),
        ({"alone": 1.0}, "LatentAnagram: alone must be a noise level in"),
        ({"alone": -0.1}, "LatentAnagram: alone must be a noise level in"),
    ],
)
def test_impossible_travels_raise(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LatentAnagram(TWO, **options)


@pytest.mark.parametrize(("steps", "alone"), [(3, 0.0), (10, 0.7)])
def test_travel_needs_room(steps, alone):
    sampler = Sampler(coded(), [LatentAnagram(TWO, travel=1, alone=alone)], None, steps)
    with pytest.raises(ValueError, match="LatentAnagram: travel needs more than 2 times between"):
        sampler.sample()


class OneWay:
    """A latent backend without encode_image."""

    def __init__(self):
        inner = coded()
        for name in ("shape", "image_shape", "schedule", "prediction", "dtype", "device"):
            setattr(self, name, getattr(inner, name))
        self.default_solver = inner.default_solver
        self.encode, self.evaluate, self.decode = inner.encode, inner.evaluate, inner.decode


GREY = torch.zeros(1, 8, 8)


@pytest.mark.parametrize(
    ("backend", "plugins", "sentence"),
    [
        (OneWay(), [LatentAnagram(TWO)], "LatentAnagram: OneWay works on latents"),
        (coded(), [LatentAnagram(TWO), SDEdit(GREY)], "SDEdit holds one image"),
        (coded(), [Inpaint(GREY, GREY[0]), LatentAnagram(TWO)], "Inpaint holds one image"),
        (coded(), [Anagram(TWO)], "Use LatentAnagram in its place"),
    ],
)
def test_a_stack_that_cannot_work_raises_when_it_is_built(backend, plugins, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(backend, plugins)


def test_calls_that_cannot_work_raise():
    sampler = Sampler(coded(), [LatentAnagram(TWO)], None, STEPS)
    z = torch.zeros(3, *sampler.backend.shape)
    with pytest.raises(ValueError, match="LatentAnagram: x must have 2 images a seed"):
        sampler.denoise(z, 0.5)
    with pytest.raises(ValueError, match="x at a time is one image a seed, and LatentAnagram"):
        sampler.sample(x=z[:1], t=sampler.times[2])
    with pytest.raises(ValueError, match="LatentAnagram: blend"):
        LatentAnagram(TWO, "sum")
    with pytest.raises(TypeError, match="LatentAnagram: views must be a dict"):
        LatentAnagram({})


# Blends


def two_images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 1, 16, 16, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", sorted(BLENDS))
def test_a_blend_of_equal_images_is_the_image(name):
    image = two_images()[0]
    torch.testing.assert_close(BLENDS[name](torch.stack([image] * 3)), image)
    assert not BLENDS[name](torch.zeros(2, 1, 1, 16, 16)).any()


def test_a_pyramid_keeps_three_quarters_of_what_one_view_alone_has():
    """Half the mean, a / 2, and half the vector average, a; opposite details vanish."""
    image = two_images()[0]
    alone = BLENDS["pyramid"](torch.stack([image, torch.zeros_like(image)]))
    torch.testing.assert_close(alone, 0.75 * image)
    opposite = BLENDS["pyramid"](torch.stack([image, -image]))
    torch.testing.assert_close(opposite, torch.zeros_like(image))


def test_a_pyramid_blends_each_level_by_its_own_sizes():
    a, b = two_images()
    expected = torch.zeros_like(a)
    for part in LaplacianPyramid(4).parts:
        p, q = part(a), part(b)
        mean = (p + q) / 2
        expected += mean + ((p.abs() * p + q.abs() * q) / (p.abs() + q.abs()) - mean) / 2
    torch.testing.assert_close(BLENDS["pyramid"](torch.stack([a, b])), expected)


def test_the_plugin_blends_by_its_argument():
    a, b = two_images()
    for name, blend in BLENDS.items():
        x = Sampler(mixture(shape=(1, 16, 16)), [LatentAnagram({"identity": 0, "flip": 1}, name)])
        z0 = torch.stack([a, b.flip(-2)], 1).flatten(0, 1)
        x0 = [x.replace(plugins=[]).denoise(z0, 0.4, condition=[0, 1] * 3).x0[k::2] for k in (0, 1)]
        expected = blend(torch.stack([x0[0], x0[1].flip(-2)]))
        torch.testing.assert_close(x.denoise(z0, 0.4).x0[::2], expected)


# The exact coder


@pytest.mark.parametrize(("shape", "factor"), [((1, 8, 8), 2), ((3, 6, 12), 3), ((2, 4, 4), 1)])
def test_the_exact_coder_is_orthogonal_and_undone(shape, factor):
    backend = OrthogonalCodecBackend(mixture(shape=shape), factor)
    x, y = torch.randn(
        2, 2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    z, w = backend.encode_image(x), backend.encode_image(y)
    assert z.shape[1:] == backend.shape
    torch.testing.assert_close(backend.decode(z), x, rtol=0, atol=1e-12)
    torch.testing.assert_close((z * w).sum(), (x * y).sum(), rtol=1e-12, atol=1e-12)


def test_a_view_of_its_latents_is_no_view_of_its_pixels():
    backend = coded()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    apart = backend.decode(backend.encode_image(x).flip(-1)) - x.flip(-1)
    assert apart.norm() > 0.5 * x.norm()


def test_the_exact_latent_backend_keeps_the_contract():
    check_backend(coded(), conditions=[0, 1])


def test_a_factor_that_does_not_divide_raises():
    with pytest.raises(ValueError, match="factor must divide the sides of 8x8 images, got 3"):
        OrthogonalCodecBackend(mixture(), 3)
