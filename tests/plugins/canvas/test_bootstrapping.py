"""Bootstrapped regions: MultiDiffusion's loop, written out, and what follows from it."""

from dataclasses import dataclass

import pytest
import torch
from conftest import mixture
from hypothesis import given, settings
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Each, Output, Request, Sampler
from composer.authoring import generator_of, to_images
from composer.testing import GaussianMixtureBackend, IdentityBackend, OrthogonalCodecBackend
from composer.testing.reads import Reads
from composer_plugins import CFG, Anagram, Canvas, Regions
from composer_plugins.backends.with_weak import WithWeak
from composer_plugins.canvas.bootstrapping import background
from composer_plugins.canvas.regions import Layout

LEFT = torch.zeros(8, 20)
LEFT[:, :10] = 1
HALVES = (LEFT, 1 - LEFT)
RAMP = torch.linspace(0.95, 0.05, 20).expand(8, 20).contiguous()
NOISY = (0.8, 1.0)


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("wrap", ["none", "horizontal"])
@pytest.mark.parametrize("prediction", ["flow", "epsilon"])
def test_it_is_the_loop_of_the_paper(prediction, wrap, inside):
    """Views, regions, a noised background around each, guidance, and the mean of the views."""
    model, x, t = mixture(prediction=prediction), noise(2, 1, 8, 20), 0.1
    alpha, sigma = model.schedule.at(t)
    value, count = torch.zeros_like(x), torch.zeros_like(x)
    canvas = Canvas(model, (8, 20), 0.5, wrap, "flat")
    starts = [0, 4, 8, 12, 16] if wrap == "horizontal" else [0, 4, 8, 12]
    plain = Sampler(model)
    for k, (condition, mask) in enumerate(zip((1, 2), HALVES, strict=True)):
        generator = generator_of(0, k)
        colour = 2 * torch.rand(1, 1, 1, generator=generator).double() - 1
        drawn = torch.randn(1, 1, 8, 20, generator=generator).double()
        composed = x * mask + (alpha * colour + sigma * drawn) * (1 - mask)
        for start in starts:
            columns = [c % 20 for c in range(start, start + 8)]
            view = composed[..., columns]
            uncond, cond = (
                plain.denoise(view, t, c).prediction for c in (UNCONDITIONAL, condition)
            )
            value[..., columns] += mask[:, columns] * (uncond + 3 * (cond - uncond))
            count[..., columns] += mask[:, columns]
    regions = Regions((1, 2), HALVES, bootstrap=NOISY)
    stack = [regions, CFG(3.0)] if inside else [CFG(3.0), regions]
    made = Sampler(canvas, stack).denoise(x, t).prediction
    torch.testing.assert_close(made, value / count, rtol=0, atol=1e-10)


@settings(max_examples=15)
@given(st.integers(1, 5), st.floats(0, 1), st.sampled_from(["none", "horizontal"]))
def test_they_obey_the_law(count, soft, wrap):
    canvas = Canvas(IdentityBackend((1, 8, 8)), (8, 24), wrap=wrap)
    x = noise(2, 1, 8, 24)
    regions = Regions([*range(count)], soft=soft, bootstrap=(0.0, 1.0))
    torch.testing.assert_close(Sampler(canvas, [regions, CFG(3.0)]).denoise(x, 0.3).prediction, x)


def test_a_region_does_not_see_the_others():
    x = noise(1, 1, 8, 20)
    other = torch.where(LEFT == 1, x, -x)
    canvas = Canvas(mixture(), (8, 20))
    for bootstrap in (NOISY, None):
        sampler = Sampler(canvas, [Regions((1, 2), HALVES, bootstrap=bootstrap), CFG(3.0)])
        one, two = (sampler.denoise(seen, 0.1).prediction[..., :10] for seen in (x, other))
        assert torch.equal(one, two) == (bootstrap is not None)


@pytest.mark.parametrize(
    ("masks", "bootstrap"),
    [((RAMP, 1 - RAMP), (0.0, 1.0)), (HALVES, (0.0, 0.75)), (HALVES, (1.0, 1.0))],
    ids=["no place is without a region", "noisier than the interval", "cleaner"],
)
def test_elsewhere_they_are_plain_regions(masks, bootstrap):
    canvas, x = Canvas(mixture(), (8, 20)), noise(2, 1, 8, 20)
    one, other = (
        Sampler(canvas, [plugin, CFG(3.0)]).denoise(x, 0.2).prediction
        for plugin in (Regions((1, 2), masks, bootstrap=bootstrap), Regions((1, 2), masks))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@dataclass(frozen=True, eq=False, repr=False)
class LearnsVariance(GaussianMixtureBackend):
    """The mixture, with a learned variance that depends on the place."""

    def evaluate(self, batch):
        return Output(super().evaluate(batch).prediction, batch.x.tanh())


def test_the_learned_variance_is_the_regions_own():
    model = LearnsVariance(mixture().means, mixture().stds)
    canvas, x = Canvas(model, (8, 20)), noise(1, 1, 8, 20)
    made = Sampler(canvas, [Regions((1, 2), HALVES, bootstrap=NOISY)]).denoise(x, 0.1)
    torch.testing.assert_close(made.variance, x.tanh())


def test_each_seed_s_image_is_its_own():
    canvas = Canvas(mixture(), (8, 20))
    regions = Regions((Each([0, 1]), 2), HALVES, bootstrap=NOISY)
    both = Sampler(canvas, [regions, CFG(3.0)], num_inference_steps=5).sample(seeds=[4, 5]).x
    for k in range(2):
        alone = Regions((k, 2), HALVES, bootstrap=NOISY)
        one = Sampler(canvas, [alone, CFG(3.0)], num_inference_steps=5).sample(seeds=[4 + k]).x
        torch.testing.assert_close(both[k : k + 1], one)


def test_each_region_costs_a_row_of_every_crop():
    """At the levels 1 and .8 of five steps; later a crop asks the regions that it shows."""
    stack = [Regions((1, 2), HALVES, bootstrap=NOISY), CFG(3.0)]
    stats = Sampler(Canvas(mixture(), (8, 20)), stack, num_inference_steps=5).sample().stats
    assert stats.rows == 2 * (2 * 2 * 4) + 3 * (6 + 4)


@pytest.mark.parametrize("bootstrap", [None, (0.0, 1.0)])
def test_nothing_waits_for_the_device(bootstrap):
    for steps in (3, 4):
        stack = [Regions((1, 2), HALVES, bootstrap=bootstrap), CFG(3.0)]
        sampler = Sampler(Canvas(mixture(), (8, 20)), stack, num_inference_steps=steps)
        with Reads() as seen:
            sampler.sample()
        assert seen.counts == {"tolist": 1}


def test_the_masks_are_read_once(monkeypatch):
    made, own = [], Layout.masks
    monkeypatch.setattr(Layout, "masks", lambda self, size: made.append(size) or own(self, size))
    regions = Regions((1, 2), HALVES, bootstrap=(0.1, 1.0))
    Sampler(Canvas(mixture(), (8, 20)), [regions], num_inference_steps=6).sample()
    assert len(made) == 2  # when the Sampler is built, and at the first step


def test_they_stand_in_a_view():
    canvas, x = Canvas(mixture(), (8, 20)), noise(1, 1, 8, 20)
    one = Regions((1, 2), HALVES, bootstrap=NOISY)
    made = Sampler(canvas, [Anagram({"identity": 0, "rotate_180": one})]).denoise(x, 0.1)
    turned = Sampler(canvas, [one]).denoise(x.flip(-2, -1), 0.1).prediction.flip(-2, -1)
    upright = Sampler(canvas).denoise(x, 0.1, 0).prediction
    torch.testing.assert_close(made.prediction, (upright + turned) / 2)


@pytest.mark.parametrize("latent", [False, True])
def test_a_background_is_one_colour_noised(latent):
    model = mixture(shape=(3, 8, 8))
    backend = Canvas(OrthogonalCodecBackend(model) if latent else model, (8, 20))
    x = noise(1, *backend.shape)

    def seen(t, step=0, region=0):
        request = Request(x, t, step=step, schedule=backend.schedule, backend=backend)
        return background(request, region)

    colours = [to_images(backend, seen(1.0, *place)) for place in ((0, 0), (0, 1), (1, 0))]
    for colour in colours:
        torch.testing.assert_close(colour, colour[..., :1, :1].expand(1, 3, 8, 20))
        assert colour.abs().max() <= 1
    assert (torch.stack(colours).diff(dim=0).abs().amax((1, 2, 3, 4)) > 1e-3).all()
    pure = seen(0.0)
    torch.testing.assert_close(seen(0.4), 0.4 * seen(1.0) + 0.6 * pure)
    # The draw is fixed; .2 is six standard errors of 480 numbers.
    assert abs(pure.std() - 1) < 0.2


def test_a_canvas_inside_of_another_backend_raises_when_built():
    canvas = Canvas(mixture(), (8, 20))
    around = WithWeak(canvas, canvas)
    assert Sampler(around, [Regions((1, 2), HALVES)], num_inference_steps=1).sample()
    with pytest.raises(ValueError, match="got one inside of WithWeak. Put the Canvas around it"):
        Sampler(around, [Regions((1, 2), HALVES, bootstrap=NOISY)])


def test_bad_intervals_raise():
    with pytest.raises(ValueError, match="Regions: bootstrap must be"):
        Regions((1, 2), bootstrap=(0.8, 2.0))
