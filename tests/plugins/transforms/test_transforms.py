"""Views: orthogonal, exactly invertible, and the probe that says so."""

from dataclasses import dataclass

import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler, Transform, get_transform
from composer.authoring import check_view
from composer.testing import IdentityBackend
from composer_plugins import Anagram
from composer_plugins.transforms import Flip, Negative, Skew

NAMES = ["identity", "flip", "rotate_180", "rotate_cw", "rotate_ccw", "skew", "negative"]
dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
views = st.sampled_from(NAMES).map(get_transform)


@st.composite
def cases(draw):
    """A view and an image of a size it accepts."""
    view = draw(views)
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    if not view.accepts(height, width):
        width = height
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(*lead, draw(st.integers(1, 3)), height, width, generator=generator)
    return view, x.to(draw(dtypes))


@given(cases())
def test_views_are_exactly_invertible_and_keep_shape_dtype_and_argument(case):
    view, x = case
    before = x.clone()
    seen = view(x)
    assert (seen.shape, seen.dtype) == (x.shape, x.dtype)
    assert torch.equal(view.inverse(seen), x)
    assert torch.equal(view(view.inverse(x)), x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_matrix_of_a_view_is_orthogonal(name):
    """Q from the images of all basis images, in float64: Q^T Q = I exactly."""
    view = get_transform(name)
    basis = torch.eye(2 * 7 * 7, dtype=torch.float64).reshape(-1, 2, 7, 7)
    q = view(basis).flatten(1)
    assert torch.equal(q @ q.T, torch.eye(98, dtype=torch.float64))


@given(cases())
def test_a_batch_is_viewed_image_by_image(case):
    view, x = case
    batch = torch.stack([x, 2 * x])
    assert torch.equal(view(batch), torch.stack([view(x), view(2 * x)]))


def test_views_do_what_their_names_say():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    expected = {
        "identity": [[1, 2], [3, 4]],
        "flip": [[3, 4], [1, 2]],
        "rotate_180": [[4, 3], [2, 1]],
        "rotate_cw": [[3, 1], [4, 2]],
        "rotate_ccw": [[2, 4], [1, 3]],
        "negative": [[-1, -2], [-3, -4]],
    }
    for name, values in expected.items():
        assert get_transform(name)(x)[0].tolist() == values, name
    assert Flip("horizontal")(x)[0].tolist() == [[2, 1], [4, 3]]


def test_the_skew_is_the_column_loop_of_the_course():
    x = torch.randn(1, 64, 64)
    expected = x.clone()
    for column, shift in enumerate(torch.linspace(-50, 50, 64).round().int().tolist()):
        expected[..., column] = torch.roll(x[..., column], shift, -1)
    assert torch.equal(Skew(50)(x), expected)


def test_the_skew_scales_with_the_image():
    """At 128 pixels every column moves twice as far."""
    ramp = torch.arange(64.0)[:, None].expand(64, 64)[None]
    large = torch.arange(128.0)[:, None].expand(128, 128)[None]
    small_shift = (ramp - Skew(32)(ramp))[0, 40, [0, 63]] % 64
    large_shift = (large - Skew(32)(large))[0, 80, [0, 127]] % 128
    assert torch.equal(large_shift, 2 * small_shift)


def test_identity_returns_the_object_itself():
    x = torch.randn(1, 2, 2)
    assert get_transform("identity")(x) is x


def test_a_variance_is_permuted_with_the_image_but_never_negated():
    x = torch.rand(1, 1, 5, 5)
    assert torch.equal(Negative().inverse_variance(x), x)
    for name in set(NAMES) - {"negative"}:
        view = get_transform(name)
        assert torch.equal(view.inverse_variance(view(x)), x)


@dataclass(frozen=True)
class Broken(Transform):
    """A flip spoilt in one way."""

    fault: str

    def __call__(self, x):
        if self.fault == "raises":
            raise RuntimeError("boom")
        seen = x.flip(-2).clone()
        if self.fault == "one pixel copied":
            seen[..., 0, 0] = seen[..., 0, 1]
        if self.fault == "scaled":
            seen = seen * 1.001
        if self.fault == "shifted":
            seen = seen + 0.1
        if self.fault == "blurred":
            seen = (seen + seen.roll(1, -1)) / 2
        if self.fault == "cropped":
            seen = seen[..., 1:, :]
        if self.fault == "absolute":
            seen = seen.abs()
        if self.fault == "mixing the batch":
            seen = seen.roll(1, 0)
        if self.fault == "in place":
            x.mul_(-1)
        if self.fault == "rough in float32" and x.dtype == torch.float32:
            seen = seen * 1.1
        if self.fault == "float64 always":
            seen = seen.double()
        return -seen if self.fault == "signed" else seen

    def inverse(self, x):
        seen = x if self.fault == "wrong inverse" else x.flip(-2)
        return -seen if self.fault == "signed" else seen


def images_of(size):
    """A model of images (1, size, size) in float32."""
    return IdentityBackend((1, size, size), dtype=torch.float32)


FAULTS = ["one pixel copied", "scaled", "shifted", "blurred", "cropped", "absolute"]
FAULTS += ["rough in float32", "float64 always"]


@pytest.mark.parametrize("fault", [*FAULTS, "wrong inverse", "mixing the batch", "in place"])
@pytest.mark.parametrize("size", [8, 256])
def test_a_view_that_is_not_orthogonal_raises(fault, size):
    with pytest.raises(ValueError, match=r"Anagram: Broken\(fault="):
        check_view(Broken(fault), images_of(size), "Anagram")


def test_a_view_that_fails_or_is_none_raises():
    with pytest.raises(ValueError, match=r"failed on images of \(1, 8, 8\) \(RuntimeError: boom\)"):
        check_view(Broken("raises"), images_of(8), "Anagram")
    with pytest.raises(TypeError, match="must be (a|) ?Transforms?( or the name of one)?, got"):
        check_view(torch.flip, images_of(8), "Anagram")
    check_view(Broken("none"), images_of(8), "Anagram")


def test_a_view_that_changes_the_sign_of_variances_raises():
    with pytest.raises(
        ValueError, match="'signed'.* maps variances as if it moved pixels. Override view_v"
    ):
        check_view(Broken("signed"), images_of(8), "Anagram")


def test_the_sampler_raises_when_built():
    with pytest.raises(ValueError, match="Anagram: .*not orthogonal"):
        Sampler(mixture(), [Anagram({Broken("scaled"): 1})])
    with pytest.raises(ValueError, match=r"RotateClockwise\(\) accepts square images, not 8x6"):
        Sampler(mixture(shape=(1, 8, 6)), [Anagram({"rotate_cw": 1})])


def test_bad_parameters_raise():
    with pytest.raises(ValueError, match="axis"):
        Flip("sideways")
    with pytest.raises(ValueError, match="max_displacement"):
        Skew(float("nan"))
