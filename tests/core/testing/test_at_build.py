"""What a Sampler finds when it is built, of what the kit finds: by one probe, at its shape."""

import re
from pathlib import Path

import pytest
import spoilt_conduct as conduct
import spoilt_maps as maps
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_decomposition_kit import BLUR, RAMP, pair, pixels, wrong_rest

from composer import Sampler, get_transform
from composer.authoring import check_parts, check_view
from composer.testing import IdentityBackend, registered_transforms
from composer.testing.transform import CONTRACT
from composer_plugins import Anagram, Components, GrayColour, Masks
from composer_plugins.transforms import Orthogonal, PixelPermute

COLOUR, GREY, OBLONG, LARGE = (3, 28, 28), (1, 28, 28), (3, 28, 20), (3, 256, 256)
LENGTHS = r"not orthogonal \(it changes lengths by the factor"
LINEAR = r"not orthogonal \(inverse\(2 f\(x\) \+ 3 f\(y\)\) is not 2x \+ 3y, off by"
UNDONE = r"not orthogonal \(inverse\(f\(x\)\) is not x, off by"
SHAPE = r"returns images \([23], .* for images \([23], .*\. Keep shape, dtype and device\."
WRITES = r"writes into its argument\. Make a new tensor\."

FOUND = [
    (maps.CopiedPixel, COLOUR, LENGTHS),
    (maps.CopiedPixelWhenLarge, LARGE, LENGTHS),
    (maps.SwappedPixels, COLOUR, UNDONE),
    (maps.WrongInverse, COLOUR, UNDONE),
    (maps.Scaled, COLOUR, LENGTHS),
    (maps.Sheared, COLOUR, LENGTHS),
    (maps.Shifted, COLOUR, LENGTHS),
    (maps.Absolute, COLOUR, UNDONE),
    (maps.Cropped, COLOUR, SHAPE),
    (maps.BatchMixing, COLOUR, LENGTHS),
    (maps.WrongWhenOblong, OBLONG, UNDONE),
    (maps.TurnsOblong, OBLONG, SHAPE),
    (maps.MinusWithoutVariance, COLOUR, "Override view_variance and inverse_variance"),
    (maps.Raises, COLOUR, r"failed on images of \(3, 28, 28\) \(RuntimeError: boom\)"),
    (maps.WrongInGray, GREY, LENGTHS),
    (maps.DoubledInFourChannels, (4, 28, 28), LENGTHS),
    (maps.CrashesInGray, GREY, "IndexError"),
    (maps.DoubledWhenLong, (3, 16, 64), LENGTHS),
    (maps.DoubledWhenLarge, (3, 8, 512), LENGTHS),
    (maps.DoubledBothWaysWhenLarge, (3, 8, 512), LENGTHS),
    (maps.CrashesWhenTiny, (3, 4, 4), "too small"),
    (conduct.InPlace, COLOUR, WRITES),
    (conduct.InPlaceInverse, COLOUR, WRITES),
]
IN_ONE_DTYPE = [
    (maps.RoughWhenLarge, LARGE, torch.float32, LENGTHS),
    (maps.InfiniteInHalf, LARGE, torch.float16, "not orthogonal"),
    (maps.RoundedIndices, (3, 512, 8), torch.bfloat16, UNDONE),
    (conduct.ToFloat32, COLOUR, torch.float64, SHAPE),
    (conduct.HalfPrecision, COLOUR, torch.float32, LENGTHS),
]
# Right at any one shape and in any one dtype, as far as one call can tell.
KIT_ALONE = {
    *(maps.OneLeadingDimension, maps.CrashesWhenLarge),
    *(maps.VarianceOfOne, maps.VarianceOfSquares, maps.VarianceOfSmall),
    *(maps.Detached, maps.KeepsInferenceTensors),
    *(conduct.VarianceInPlace, conduct.VarianceInFloat64),
    *(conduct.GlobalTorch, conduct.GlobalNumpy, conduct.GlobalPython),
    *(conduct.ReseedsGlobal, conduct.ReadsGlobal, conduct.CachedGlobal),
    *(conduct.DefaultDtype, conduct.Threads, conduct.Nondeterministic),
    *(conduct.NeedsContiguous, conduct.ReadsStorage),
    *(conduct.Unhashable, conduct.UnequalCopies, conduct.DrawnWhenMade),
    *(conduct.WrongInverseTransform, conduct.VagueAccepts, conduct.SilentSizes),
    *(conduct.LateFrame, conduct.FrameWrites, conduct.FadedInFloat32, conduct.FadedWhenLarge),
    *(conduct.FrameOfFloat32, conduct.FrameOfBatches, conduct.RandomFrame, conduct.MixedFrame),
}


@pytest.mark.parametrize(
    ("spoilt", "shape", "dtype", "sentence"),
    [(*row[:2], d, row[2]) for row in FOUND for d in (torch.float32, torch.float64)] + IN_ONE_DTYPE,
)
def test_a_wrong_view_is_found_when_the_sampler_is_built(spoilt, shape, dtype, sentence):
    with pytest.raises(ValueError, match=rf"^Anagram: .*{spoilt.__name__}.*{sentence}"):
        Sampler(IdentityBackend(shape, dtype=dtype), [Anagram({spoilt(): 1})])


def test_every_spoilt_view_is_found_at_build_or_left_to_the_kit():
    found = {row[0] for row in [*FOUND, *IN_ONE_DTYPE]}
    every = {spoilt for spoilt, _ in [*maps.MAPS, *conduct.CONDUCT]}
    assert found | KIT_ALONE == every
    assert not found & KIT_ALONE


def test_what_only_the_kit_proves_is_documented():
    by_law = {}
    for spoilt, law in [*maps.MAPS, *conduct.CONDUCT]:
        by_law.setdefault(law, set()).add(spoilt)
    alone = {law for law, spoilt in by_law.items() if spoilt <= KIT_ALONE} | {"recipe"}
    page = (Path(__file__).parents[3] / "docs" / "write-a-transform.md").read_text()
    paragraph = page.split("Only the kit proves")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", paragraph)) & {law.__name__ for law in CONTRACT} == alone


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(registered_transforms()))
def test_right_views_pass_in_every_dtype(name, dtype):
    view = get_transform(name)
    for shape in (COLOUR, (3, 64, 64), (3, 32, 48)):
        if view.accepts(*shape[1:]):
            for one in (view, view @ view.inverse_transform @ view):
                check_view(one, IdentityBackend(shape, dtype=dtype), "")


@pytest.mark.parametrize("pixel", [0, 1023 * 1024 + 700])
def test_one_lost_pixel_of_a_million_is_found_in_float32(pixel):
    class Lost(maps.FlipLike):
        def __call__(self, x):
            seen = x.flip(-2)
            seen.flatten(-2)[..., pixel] = seen.flatten(-2)[..., pixel + 1]
            return seen

    with pytest.raises(ValueError, match="not orthogonal"):
        check_view(Lost(), IdentityBackend((1, 1024, 1024), dtype=torch.float32), "Anagram")


@given(st.floats(1e-5, 1), st.sampled_from([-1, 1]))
def test_a_gain_is_found_down_to_the_rounding_of_the_dtype(gain, sign):
    class Scaled(maps.FlipLike):
        def __call__(self, x):
            return x.flip(-2) * (1 + gain) ** sign

        def inverse(self, x):
            return x.flip(-2) * (1 + gain) ** -sign

    with pytest.raises(ValueError, match="changes lengths"):
        check_view(Scaled(), IdentityBackend(GREY, dtype=torch.float32), "Anagram")


@given(st.integers(2, 9), st.integers(0, 99))
def test_whoever_does_more_than_move_pixels_must_say_what_becomes_of_variances(size, seed):
    """The sum of cubes tells permutations from all other orthogonal maps."""
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(size**2, size**2, generator=generator, dtype=torch.float64)

    class Silent(maps.FlipLike):
        """Another view, without its variances."""

        def __init__(self, view):
            self.view = view

        def __call__(self, x):
            return self.view(x)

        def inverse(self, x):
            return self.view.inverse(x)

    backend, mixed = IdentityBackend((1, size, size)), Orthogonal(torch.linalg.qr(square).Q)
    check_view(mixed, backend, "Anagram")
    check_view(Silent(PixelPermute(seed=seed)), backend, "Anagram")
    with pytest.raises(ValueError, match="maps variances as if it moved pixels"):
        check_view(Silent(mixed), backend, "Anagram")


@given(st.integers(0, 999))
def test_a_view_that_is_linear_in_each_half_of_all_images_is_found(seed):
    """It keeps lengths and is undone: only what it makes of sums tells."""
    direction = torch.randn(GREY, generator=torch.Generator().manual_seed(seed))
    direction = direction + direction.flip(-2)

    class Halves(maps.FlipLike):
        def __call__(self, x):
            positive = (x * direction.to(x)).sum((-3, -2, -1), keepdim=True) > 0
            return torch.where(positive, x, x.flip(-2))

        inverse = __call__

    with pytest.raises(ValueError, match=LINEAR):
        check_view(Halves(), IdentityBackend(GREY), "Anagram")


@given(st.integers(0, 999))
def test_a_part_that_is_linear_in_each_half_of_all_images_is_found(seed):
    direction = torch.randn(GREY, generator=torch.Generator().manual_seed(seed))

    def half(x):
        return x * ((x * direction.to(x)).sum((-3, -2, -1), keepdim=True) > 0)

    with pytest.raises(ValueError, match="is not linear"):
        check_parts((half, lambda x: x - half(x)), IdentityBackend(GREY), "Components")


# Parts

SUM, BENT = "the parts do not sum to the identity", r"is not linear \(f\(-2x - 3y\)"
WRONG_PARTS = [
    ((BLUR, BLUR), COLOUR, SUM),
    ((BLUR, lambda x: x - BLUR(x).double()), COLOUR, SHAPE),
    (pair(lambda x: x[..., 1:, :]), COLOUR, SHAPE),
    (pair(lambda x: x / 0), COLOUR, BENT),
    (pair(torch.tanh), COLOUR, BENT),
    (pair(lambda x: x.median() + 0 * x), COLOUR, BENT),
    (pair(lambda x: x.roll(1, 0)), COLOUR, BENT),
    (pair(lambda x: x.mean(0, keepdim=True).expand_as(x)), COLOUR, BENT),
    ((lambda x: x.mul_(0.5), lambda x: 0.5 * x), COLOUR, WRITES),
    (pair(lambda x: x * RAMP.to(x)), OBLONG, "failed on images"),
    ((torch.clone, torch.zeros_like), COLOUR, "part 1 of .* is zero on images of"),
    (wrong_rest(lambda x: x.shape[-3] == 1), GREY, SUM),
    (wrong_rest(lambda x: x.shape[-1] < 20), (3, 16, 16), SUM),
    (wrong_rest(lambda x: x.shape[-1] > 2 * x.shape[-2]), (3, 16, 64), SUM),
    ((lambda x: 1000 * x, lambda x: -999 * x + 0.1), COLOUR, BENT),
]


@pytest.mark.parametrize(("parts", "shape", "sentence"), WRONG_PARTS)
def test_wrong_parts_are_found_when_the_sampler_is_built(parts, shape, sentence):
    backend = IdentityBackend(shape, dtype=torch.float32)
    with pytest.raises(ValueError, match=rf"^Components: .*{sentence}"):
        Sampler(backend, [Components(parts, (1, 2))])


@pytest.mark.parametrize("parts", [pair(pixels), (BLUR, lambda x: x - BLUR(x))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_parts_pass(parts, dtype):
    check_parts(parts, IdentityBackend(COLOUR, dtype=dtype), "Components")


def test_parts_that_are_large_and_cancel_are_right_within_their_own_rounding():
    parts = (lambda x: 1000 * x.roll(1, -1), lambda x: x - 1000 * x.roll(1, -1))
    check_parts(parts, IdentityBackend(COLOUR, dtype=torch.float32), "Components")


def test_a_part_may_be_zero_where_that_is_said():
    backend = IdentityBackend(GREY)
    check_parts(GrayColour(), backend, "Reference", may_vanish=True)
    with pytest.raises(ValueError, match=r"part 1 of GrayColour\(\) is zero .*\(1, 28, 28\)"):
        check_parts(GrayColour(), backend, "Components")
    check_parts(Masks([RAMP, 1 - RAMP]), backend, "Components")
