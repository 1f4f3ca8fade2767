"""Plugins over latents: with an exact coder each is its twin over pixels, with others exact at the
end where it says so."""

import dataclasses

import pytest
import torch
from conftest import mixture

import composer.protocols
from composer import Plugin, Request, Sampler, hookimpl
from composer.authoring import declared, draw, in_pixels, is_latent
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, DDPM, DPMSolverPP, Euler, Heun
from composer.testing import OrthogonalCodecBackend
from composer_plugins import (
    CFG,
    DDNM,
    DPS,
    TFG,
    Bands,
    BlockMean,
    Climb,
    Components,
    FeynmanKac,
    Hybrid,
    Inpaint,
    KnownPixels,
    LanPaint,
    LaplacianPyramid,
    LatentAnagram,
    Masks,
    Particles,
    Recurrence,
    Reference,
    SDEdit,
    SquaredError,
    Steer,
    TripleHybrid,
)
from composer_plugins.editing import inpaint

SHAPE = 1, 8, 8
SEEDS = [3, 8]
STEPS = 6
EXACT = {"rtol": 0, "atol": 1e-10}
PATHS = {
    "flow": {},
    "epsilon": {"schedule": DiscreteSchedule.linear(), "prediction": "epsilon"},
    "wide flow": {"schedule": FlowSchedule(noise_scale=2.0), "prediction": "sample"},
}


def coded(kind=OrthogonalCodecBackend, **path):
    return kind(mixture(shape=SHAPE, **path))


def image(seed=0, count=None):
    generator = torch.Generator().manual_seed(seed)
    shape = SHAPE if count is None else (count, *SHAPE)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


COARSE = torch.zeros(8, 8)
COARSE[2:6, 4:] = 1  # whole latents
FINE = torch.zeros(8, 8)
FINE[3:6, 1:4] = 1


def score(x):
    return -(x - image(5)).square().flatten(1).sum(1)


def bent(x):
    """A loss of every pixel that is no sum of squares."""
    return (image(6) * x.sin()).sum((1, 2, 3))


class Shifted(Plugin):
    """x_0 <- x_0 - P x_0 + P image, what a Reference does over latents."""

    def __init__(self, given, part):
        self.given, self.part = given, part

    @hookimpl
    def noise_estimate(self, request):
        (estimate,) = yield [request]
        return estimate.with_x0(estimate.x0 + self.part(self.given - estimate.x0))


@pytest.fixture(autouse=True)
def same_noise(monkeypatch):
    """All noise of pixels is decoded noise of latents."""

    def drawn(generators, backend, shape=None):
        if is_latent(backend):
            return draw(generators, backend, shape)
        coder = OrthogonalCodecBackend(backend)
        return coder.decode(draw(generators, coder, shape))

    def of_a_request(request):
        return drawn(request.generators, request.backend)

    monkeypatch.setattr(composer.protocols, "draw", drawn)
    monkeypatch.setattr(inpaint, "draw", drawn)
    monkeypatch.setattr(Request, "randn", of_a_request)


HALVED = SquaredError(image(1)[:, :4, :4], BlockMean(2), 0.5)
MASKS = Masks((COARSE, 1 - COARSE))
STACKS = {
    "hybrid": [Hybrid(0, 1)],
    "hybrid, guidance inside": [Hybrid(0, 1), CFG(3.0)],
    "hybrid, guidance outside": [CFG(3.0), Hybrid(0, 1)],
    "triple hybrid": [TripleHybrid(0, 1, 2)],
    "hybrid of hybrids": [Hybrid(Hybrid(0, 1), 2, sigma=8.0)],
    "regions": [Components(Masks((FINE, 1 - FINE)), (0, 1)), CFG(2.0)],
    "pyramid": [Components(LaplacianPyramid(1), (0, 1))],
    "DDNM, pixels": [DDNM(image(1), KnownPixels(FINE)), CFG(2.0)],
    "DDNM, means": [DDNM(image(1)[:, :2, :2], BlockMean(4)), Hybrid(0, 1)],
    "SDEdit": [SDEdit(image(1), 0.7), CFG(2.0)],
    "inpaint, clean": [Inpaint(image(1), COARSE, "clean")],
    "inpaint, renoise": [Inpaint(image(1, 2), COARSE, "renoise"), Hybrid(0, 1)],
    "inpaint, repaint": [Inpaint(image(1), COARSE, "repaint", 2)],
    "inpaint, fixed": [Inpaint(image(1), COARSE, "fixed"), CFG(2.0)],
    "LanPaint": [LanPaint(image(1), COARSE, 2), CFG(2.0)],
    "Steer": [Steer(HALVED), CFG(2.0)],
    "Steer, a view": [Steer(bent, 0.2, "rotate_cw", 3), Hybrid(0, 1)],
    "DPS": [DPS(HALVED, 0.3), CFG(2.0)],
    "DPS, a view": [DPS(bent, 0.2, "rotate_cw"), CFG(2.0)],
    "Climb": [Climb(score, 0.3), CFG(2.0)],
    "TFG": [TFG(HALVED, 0.1, 0.1, 0.5, 2), Recurrence(2), CFG(2.0)],
    "TFG, a view": [TFG(bent, 0.1, 0.1, view="rotate_cw"), Hybrid(0, 1)],
    "all that steer": [Steer(bent, 0.1), DPS(HALVED, 0.1), Climb(score, 0.1), Hybrid(0, 1)],
    "particles": [Particles(score, ((1, 4), (0.6, 2), (0, 1)))],
    "Feynman-Kac": [FeynmanKac(score, 0.3, 3), CFG(2.0)],
    "particles of an edited hybrid": [
        *(Particles(score, ((1, 2), (0, 1))), SDEdit(image(1), 0.8)),
        *(Inpaint(image(2), COARSE), Hybrid(0, 1), CFG(2.0)),
    ],
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("path", PATHS)
def test_over_an_exact_coder_it_is_its_twin_over_pixels(name, path):
    backend, plugins = coded(**PATHS[path]), STACKS[name]
    solver = DDPM() if path == "epsilon" else Euler()
    condition = None if any(declared(p, "conditions") for p in plugins) else 1
    latent, pixel = (
        Sampler(one, plugins, solver, STEPS).sample(condition, SEEDS)
        for one in (backend, backend.inner)
    )
    torch.testing.assert_close(latent.x, pixel.x, **EXACT)
    assert (latent.stats.rows, latent.stats.calls) == (pixel.stats.rows, pixel.stats.calls)


@pytest.mark.parametrize("solver", [DDIM(), Heun(), DPMSolverPP()], ids=repr)
def test_also_by_solvers_of_several_estimates(solver):
    backend, plugins = coded(), [DDNM(image(1), KnownPixels(FINE)), Hybrid(0, 1), CFG(3.0)]
    latent, pixel = (
        Sampler(one, plugins, solver, STEPS).sample(seeds=SEEDS).x
        for one in (backend, backend.inner)
    )
    torch.testing.assert_close(latent, pixel, **EXACT)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", [image(1), image(1, 2)], ids=["one", "one a seed"])
def test_a_reference_replaces_its_part_of_the_clean_image(path, given):
    backend, blur = coded(**PATHS[path]), Bands().parts[0]
    reference = Sampler(backend, [Reference(given, Bands()), CFG(2.0)], Euler(), STEPS)
    twin = Sampler(backend.inner, [Shifted(given, blur), CFG(2.0)], Euler(), STEPS)
    found, expected = (one.sample(1, seeds=SEEDS).x for one in (reference, twin))
    torch.testing.assert_close(found, expected, **EXACT)


def test_a_reference_of_a_mask_is_ddnm_of_the_known_pixels():
    backend, masks = coded(), Masks((FINE, 1 - FINE))
    found, expected = (
        Sampler(backend, [plugin], None, STEPS).sample(1, seeds=SEEDS).x
        for plugin in (
            Reference(image(1), masks, part=1),
            DDNM(image(1), KnownPixels(FINE)),
        )
    )
    torch.testing.assert_close(found, expected, **EXACT)


# Over coders that lose something


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Lossy(OrthogonalCodecBackend):
    """A coder that is not linear, and from which no image returns as it was."""

    def decode(self, z):
        return super().decode(z).tanh()

    def encode_image(self, x):
        return 0.9 * super().encode_image(x) + 0.1

    def evaluate(self, batch):
        return coded().evaluate(batch)


KEPT = {
    "DDNM": DDNM(image(1), KnownPixels(FINE)),
    "Reference": Reference(image(1), Masks((FINE, 1 - FINE)), part=1),
    "Inpaint": Inpaint(image(1), FINE),
    "LanPaint": LanPaint(image(1), FINE, 1),
}


def test_the_gradient_of_dps_goes_through_the_decoder():
    """Of the loss of decoded images, against central differences over latents."""
    backend, t = coded(Lossy), 0.4
    clean, noise = (backend.encode_image(image(seed, 1)) for seed in (1, 2))
    z = backend.schedule.add_noise(clean, noise, t)
    plain, steered = Sampler(backend), Sampler(backend, [DPS(bent, 0.5, "rotate_cw")])
    gradient = (steered.denoise(z, t, 1).noise - plain.denoise(z, t, 1).noise) / (0.5 * 0.6)

    def loss(z):
        return bent(backend.decode(plain.denoise(z, t, 1).x0).rot90(-1, (-2, -1)))

    for place in (0, 17, 40):
        step = torch.zeros_like(z).flatten()
        step[place] = 1e-5
        up, down = (loss(z + d) for d in (step.view_as(z), -step.view_as(z)))
        expected = float((up - down) / 2e-5)
        assert float(gradient.flatten()[place]) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("plugin", [Steer(HALVED, 0.0), Climb(lambda x: 0 * score(x))])
def test_steering_that_changes_nothing_changes_no_latents(plugin):
    found, plain = (
        Sampler(coded(Lossy), [*plugins, CFG(2.0)], None, STEPS).sample(1, SEEDS).x
        for plugins in ([plugin], [])
    )
    torch.testing.assert_close(found, plain, **EXACT)


def test_steering_sees_decoded_images():
    """In their size, and the law of a moved clean latent: E(D(z0) moved) + z0 - E(D(z0))."""
    backend, t = coded(Lossy), 0.4
    z = backend.encode_image(image(2, 2))
    z0 = Sampler(backend).denoise(z, t, 1).x0
    seen = backend.decode(z0)
    spread = (0.6 * 0.5) ** 2 / ((0.4 * 0.5) ** 2 + 0.6**2)
    moved = seen - spread * 0.3 * image(6) * seen.cos()
    expected = backend.encode_image(moved) + z0 - backend.encode_image(seen)
    found = Sampler(backend, [Steer(bent, 0.3, iterations=1)]).denoise(z, t, 1).x0
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("name", KEPT)
def test_known_pixels_are_exact_at_the_end(name):
    stack = [KEPT[name], Hybrid(0, 1), CFG(2.0)]
    x = Sampler(coded(Lossy), stack, None, STEPS).sample(seeds=SEEDS).x
    known = image(1)[:, FINE == 0].expand(2, -1, -1)
    if name == "Reference":  # x + P (image - x), which rounds
        torch.testing.assert_close(x[:, :, FINE == 0], known, rtol=0, atol=1e-15)
    else:
        assert torch.equal(x[:, :, FINE == 0], known)
    assert (x - image(1)).abs()[:, :, FINE == 1].min() > 0


def test_ddnm_has_its_measurement_exactly_at_the_end():
    y = image(1)[:, :2, :2]
    x = Sampler(coded(Lossy), [DDNM(y, BlockMean(4))], None, STEPS).sample(1, seeds=SEEDS).x
    torch.testing.assert_close(BlockMean(4).apply(x), y.expand(2, -1, -1, -1), **EXACT)


@pytest.mark.parametrize("plugin", [Hybrid(1, 1), TripleHybrid(1, 1, 1), Components(MASKS, (1, 1))])
def test_parts_of_one_condition_are_the_model_alone_over_any_coder(plugin):
    found, plain = (
        Sampler(coded(Lossy), plugins, None, STEPS).sample(condition, seeds=SEEDS).x
        for plugins, condition in (([plugin], None), ([], 1))
    )
    torch.testing.assert_close(found, plain, **EXACT)


def test_the_clean_latents_of_a_hybrid_are_those_of_the_equation():
    backend, t = coded(Lossy), 0.4
    z = backend.encode_image(image(2, 2))
    model = Sampler(backend, [])
    z0 = [model.denoise(z, t, condition=k).x0 for k in (0, 1)]
    p = [backend.decode(one) for one in z0]
    lost = sum(one - backend.encode_image(seen) for one, seen in zip(z0, p, strict=True)) / 2
    low, high = Bands((2.0,)).parts
    expected = backend.encode_image(low(p[0]) + high(p[1])) + lost
    found = Sampler(backend, [Hybrid(0, 1)]).denoise(z, t).x0
    torch.testing.assert_close(found, expected, **EXACT)


def test_a_change_in_pixels_that_changes_nothing_changes_no_latents():
    backend = coded(Lossy)
    z = backend.encode_image(image(2, 2))
    torch.testing.assert_close(in_pixels(backend, lambda x: x, z), z, **EXACT)
    assert torch.equal(in_pixels(backend.inner, lambda x: 2 * x, image()), 2 * image())


@pytest.mark.parametrize("plugin", [Particles(score), FeynmanKac(score)], ids=["greedy", "FK"])
def test_scores_see_decoded_images(plugin):
    seen = []

    def noted(x):
        seen.append(tuple(x.shape[1:]))
        return score(x)

    stack = [dataclasses.replace(plugin, score=noted)]
    sampler = Sampler(coded(Lossy), stack, None, STEPS)
    assert sampler.sample(1, seeds=SEEDS).x.shape == (2, *SHAPE)
    assert set(seen) == {SHAPE}


# What raises


class OneWay:
    """A latent backend without encode_image."""

    def __init__(self):
        inner = coded()
        for name in ("shape", "image_shape", "schedule", "prediction", "dtype", "device"):
            setattr(self, name, getattr(inner, name))
        self.default_solver = inner.default_solver
        self.encode, self.evaluate, self.decode = inner.encode, inner.evaluate, inner.decode


@pytest.mark.parametrize(
    "plugin",
    [
        Hybrid(0, 1),
        TripleHybrid(0, 1, 2),
        Components(MASKS, (0, 1)),
        Reference(image(), Bands()),
        DDNM(image(), KnownPixels(FINE)),
        Steer(bent),
        Climb(score),
    ],
    ids=lambda plugin: type(plugin).__name__,
)
def test_a_model_that_does_not_encode_raises(plugin):
    with pytest.raises(ValueError, match=f"{type(plugin).__name__}: OneWay works on latents"):
        Sampler(OneWay(), [plugin])


@pytest.mark.parametrize("plugin", [Reference(image()), DDNM(image(), KnownPixels(FINE))])
def test_an_image_held_by_another_plugin_is_none_of_each_view(plugin):
    views = LatentAnagram({"identity": 0, "flip": 1})
    with pytest.raises(ValueError, match=f"{type(plugin).__name__} holds one image"):
        Sampler(coded(), [views, plugin])
