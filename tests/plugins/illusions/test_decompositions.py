"""Decompositions: linear, summing to the identity, and what each is said to be."""

import pytest
import torch
from conftest import mixture
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from composer import Sampler, hookimpl
from composer.authoring import check_parts
from composer.testing import IdentityBackend
from composer_plugins import (
    CFG,
    Anagram,
    Bands,
    Components,
    GaussianBlur,
    GrayColour,
    Hybrid,
    LaplacianPyramid,
    Masks,
    MotionBlur,
    Particles,
    Reference,
    Scales,
    TripleHybrid,
)

HALF = torch.zeros(16, 16)
HALF[:, :8] = 1
sigmas = st.floats(1.5, 6.0)  # below, a blur is the identity at 16 pixels, and refused
decompositions = st.one_of(
    st.builds(Bands, st.lists(sigmas, min_size=1, max_size=4)),
    st.builds(LaplacianPyramid, st.integers(1, 5), st.floats(1.5, 3.0)),
    st.builds(MotionBlur, st.integers(2, 15), st.sampled_from(["zeros", "reflect"])),
    st.just(GrayColour()),
    st.just(Masks((HALF, 1 - HALF))),
    st.lists(st.floats(0.1, 3), max_size=3).map(lambda a: Scales((*a, 1.05 - sum(a), -0.05))),
)


def image(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(decompositions, st.sampled_from([(1, 28, 28), (3, 32, 20), (3, 64, 64)]))
def test_parts_are_linear_and_sum_to_the_identity(decomposition, shape):
    assume(shape[1] == shape[2] or not isinstance(decomposition, Masks))  # HALF is square
    check_parts(decomposition, IdentityBackend(shape), "test", may_vanish=shape[0] == 1)


@given(decompositions, st.floats(-2, 6), st.sampled_from([0.0, 0.4, 0.9]))
def test_every_decomposition_obeys_the_law(decomposition, scale, t):
    backend = IdentityBackend((3, 16, 16))
    x = image(2, 3, 16, 16)
    conditions = [*range(len(decomposition.parts) - 1), Anagram({"flip": 8, "rotate_180": 9})]
    stack = [Components(decomposition, conditions), CFG(scale)]
    torch.testing.assert_close(Sampler(backend, stack).denoise(x, t).prediction, x)


def test_hybrids_are_bands():
    backend, x = mixture(shape=(1, 16, 16)), image(1, 1, 16, 16)
    for plugin, bands, conditions in (
        (Hybrid(0, 1, 2.5), Bands((2.5,)), (0, 1)),
        (TripleHybrid(0, 1, 2, (1.0, 3.0)), Bands((1.0, 3.0)), (0, 1, 2)),
    ):
        one = Sampler(backend, [plugin]).denoise(x, 0.4).prediction
        other = Sampler(backend, [Components(bands, conditions)]).denoise(x, 0.4).prediction
        assert torch.equal(one, other)


def test_gray_is_the_mean_of_channels_and_colour_has_none():
    x = image(2, 3, 8, 8)
    gray, colour = (part(x) for part in GrayColour().parts)
    torch.testing.assert_close(gray, x.mean(1, keepdim=True).expand(2, 3, 8, 8))
    torch.testing.assert_close(colour.mean(1), torch.zeros(2, 8, 8, dtype=x.dtype))


@pytest.mark.parametrize(("side", "taps"), [(64, 7), (128, 15), (192, 21), (256, 29)])
def test_motion_is_that_of_the_published_illusions(side, taps):
    """7 taps at 64 pixels, times whole factors, made odd; a convolution that pads with zeros."""
    x = image(2, 1, side, side)
    kernel = torch.eye(taps, dtype=x.dtype)[None, None] / taps
    motion, rest = MotionBlur().parts
    torch.testing.assert_close(motion(x), F.conv2d(x, kernel, padding=taps // 2))
    torch.testing.assert_close(motion(x) + rest(x), x)


@given(st.integers(2, 15), st.integers(1, 24), st.integers(1, 24))
def test_motion_is_the_mean_along_the_diagonal(taps, height, width):
    x, length = image(1, 2, height, width), max(1, taps * height // 128)
    reach = min(length, height - 1, width - 1)
    for padding, mode in (("zeros", "constant"), ("reflect", "reflect")):
        wide = F.pad(x, (reach,) * 4, mode=mode)
        steps = (wide.roll((k, k), (-2, -1)) for k in range(-reach, reach + 1))
        expected = sum(steps)[..., reach : reach + height, reach : reach + width]
        blurred = MotionBlur(taps, padding).parts[0](x)
        torch.testing.assert_close(blurred, expected / (2 * reach + 1))


def test_a_pyramid_blurs_by_octaves():
    """Its coarsest level is one blur of sigma * 2^(depth - 1), away from the mirrored edges."""
    x = image(1, 1, 64, 64)
    coarse = LaplacianPyramid(3, 1.0).parts[0](x)
    once = GaussianBlur(4.0)(x)
    # Sampled Gaussians do not cascade exactly at sigma 1.
    middle = slice(24, 40)
    torch.testing.assert_close(
        coarse[..., middle, middle], once[..., middle, middle], rtol=0, atol=2e-3
    )


def test_masks_are_resized_by_averaging():
    x = torch.ones(1, 1, 8, 8)
    left, right = (part(x) for part in Masks((HALF, 1 - HALF)).parts)
    assert torch.equal(left[0, 0], F.avg_pool2d(HALF[None], 2)[0])
    assert torch.equal(left + right, x)
    white = Image.new("L", (8, 8), 255)
    assert torch.equal(Masks((white,)).parts[0](x), x)


def test_regions_follow_their_own_conditions():
    backend, x = mixture(shape=(1, 16, 16)), image(1, 1, 16, 16)
    ours = Sampler(backend, [Components(Masks((HALF, 1 - HALF)), (0, 1))]).denoise(x, 0.4)
    zero, one = (Sampler(backend).denoise(x, 0.4, k).prediction for k in (0, 1))
    torch.testing.assert_close(ours.prediction, HALF * zero + (1 - HALF) * one)


@pytest.mark.parametrize("decomposition", [GrayColour(), Masks((HALF, 1 - HALF))])
def test_a_projection_of_the_reference_is_exact_at_the_end(decomposition):
    backend = mixture(shape=(3, 16, 16))
    picture = image(1, 3, 16, 16).clamp(-1, 1)
    plugin = Reference(picture, decomposition)
    x = Sampler(backend, [plugin, CFG(2.0)], num_inference_steps=5).sample(1, seeds=[1, 2]).x
    known = decomposition.parts[0]
    torch.testing.assert_close(known(x), known(picture).expand(2, 3, 16, 16))
    assert (x - picture).abs().max() > 0.1


def test_a_blurred_reference_is_the_low_part_of_a_hybrid():
    """x_final = G image + (I - G) (the solver's last x): the rest has no low part of its own."""
    backend = mixture(shape=(1, 16, 16))
    picture = image(1, 1, 16, 16).clamp(-1, 1)
    last = {}

    class Watch:
        @hookimpl
        def post_step(self, state):
            last["x"] = state.x

    sampler = Sampler(backend, [Watch(), Reference(picture, Bands((2.0,)))], None, 4)
    x = sampler.sample(1).x
    low, high = Bands((2.0,)).parts
    torch.testing.assert_close(x, low(picture) + high(last["x"]))


def test_the_reference_is_exact_whatever_comes_after_it():
    class Later:
        @hookimpl
        def post_step(self, state):
            state.x = state.x + 0.1

    picture = image(1, 3, 16, 16).clamp(-1, 1)
    gray = GrayColour().parts[0]
    for stack in ([Reference(picture, GrayColour()), Later()], [Later(), Reference(picture)]):
        x = Sampler(mixture(shape=(3, 16, 16)), stack, None, 4).sample(1).x
        if isinstance(stack[1], Later):
            torch.testing.assert_close(gray(x), gray(picture))
        assert torch.isfinite(x).all()
    two = [Reference(picture, GrayColour()), Reference(-picture, GrayColour())]
    with pytest.raises(ValueError, match="Reference: two of them give the same part"):
        Sampler(mixture(shape=(3, 16, 16)), two)


@pytest.mark.parametrize("decomposition", [GrayColour(), Bands((2.0,))])
def test_a_reference_serves_every_candidate(decomposition):
    """Choosing at the end leaves the chosen image as it would be alone."""
    picture = image(1, 3, 16, 16).clamp(-1, 1)
    stack = [Reference(picture, decomposition), CFG(2.0)]
    backend, seen = mixture(shape=(3, 16, 16)), []

    def first(x):
        seen.append(x)
        return -torch.arange(float(len(x)))

    chosen = Sampler(backend, [Particles(first, ((1, 3), (0, 1))), *stack], None, 4).sample(1)
    alone = Sampler(backend, stack, None, 4).sample(1)
    torch.testing.assert_close(chosen.x, alone.x)


def test_a_part_that_is_nothing_raises():
    with pytest.raises(ValueError, match=r"part 1 of GrayColour\(\) is zero"):
        Sampler(mixture(), [Components(GrayColour(), (0, 1))])


def test_nested_views_reach_the_result():
    nested = Components(Scales(), (Anagram({"flip": 0}), 1))
    views = Sampler(mixture(), [nested], None, 1).sample().views
    assert [type(view).__name__ for view in views] == ["Flip"]


def test_what_is_not_a_decomposition_raises():
    for make, words in (
        (lambda: Bands(()), "1 to 16 numbers, got 0"),
        (lambda: Bands((-1.0,)), "positive"),
        (lambda: LaplacianPyramid(0), "at least 1"),
        (lambda: MotionBlur(1), "at least 2"),
        (lambda: MotionBlur(7, "mirror"), "padding must be one of .*'reflect', 'zeros'"),
        (lambda: Masks(()), "at least one"),
        (lambda: Masks((HALF, HALF)), "must sum to one"),
        (lambda: Masks((HALF, 1 - HALF[:8])), "one size"),
        (lambda: Scales((0.5, 0.6)), "sum to 1"),
        (lambda: Reference(torch.zeros(1, 8, 8), GrayColour(), 2), "below 2"),
        (lambda: Components(GrayColour(), (1, 2, 3)), "must be 2, one per part, got 3"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    for make in (
        lambda: Components(5, (1, 2)),
        lambda: Components(GrayColour, (1, 2)),
        lambda: Components("gray_colour", (1, 2)),
        lambda: Components(GrayColour(), "68"),
        lambda: Reference(torch.zeros(1, 8, 8), None),
        lambda: Masks(5),
    ):
        with pytest.raises(TypeError, match="must have parts|must be a list"):
            make()
    with pytest.raises(ValueError, match="proportions"):
        Sampler(mixture(), [Components(Masks((HALF[:8], 1 - HALF[:8])), (0, 1))])


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2) * 1.01, "sum to the identity"),
        (lambda x: 1.5 * x, "sum to the identity"),
    ],
)
def test_parts_that_leave_something_over_raise(part, reason):
    with pytest.raises(ValueError, match=reason):
        Sampler(mixture(), [Components((part, lambda x: x - part(x) / 2), (0, 1))])
