"""Colours, matrices and reflections as views, their variances, and recipes of all views."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import composer
from composer import get_transform
from composer.authoring import check_view
from composer.recipes import decode, encode
from composer.testing import IdentityBackend
from composer_plugins import transforms
from composer_plugins.transforms import (
    ChannelPermutation,
    ColourRotation,
    DetailNegative,
    Negative,
    Orthogonal,
    Permutation,
)


def random_q(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q


def matrix_of(view, shape):
    """Q from the images of all basis images; column k is the view of basis image k."""
    n = shape[0] * shape[1] * shape[2]
    return view(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).flatten(1).T


CASES = [
    (Orthogonal(random_q(3), over="channels"), (3, 2, 2)),
    (Orthogonal(random_q(12), over="pixels"), (3, 3, 4)),
    (Orthogonal(random_q(36), over="image"), (3, 3, 4)),
    (ColourRotation(77), (3, 2, 2)),
    (DetailNegative(2), (2, 4, 6)),
    (DetailNegative(4), (1, 4, 6)),
    (ChannelPermutation((1, 2, 0)), (3, 2, 2)),
    (Negative(), (2, 2, 2)),
]


@pytest.mark.parametrize(("view", "shape"), CASES)
def test_orthogonal_and_inverted(view, shape):
    q = matrix_of(view, shape)
    identity = torch.eye(len(q), dtype=torch.float64)
    assert torch.allclose(q @ q.T, identity, rtol=0, atol=1e-14)
    assert torch.allclose(matrix_of(view.inverse_transform, shape), q.T, rtol=0, atol=1e-14)
    check_view(view, IdentityBackend(shape), "Anagram")


@pytest.mark.parametrize(("view", "shape"), CASES)
def test_variances_go_through_the_squared_entries(view, shape):
    """The variances of the view of independent noise: the diagonal of Q diag(v) Q^T."""
    q = matrix_of(view, shape)
    v = torch.rand(shape, dtype=torch.float64)
    seen = (q @ torch.diag(v.flatten()) @ q.T).diagonal().reshape(shape)
    back = (q.T @ torch.diag(v.flatten()) @ q).diagonal().reshape(shape)
    assert torch.allclose(view.view_variance(v), seen, rtol=0, atol=1e-13)
    assert torch.allclose(view.inverse_variance(v), back, rtol=0, atol=1e-13)
    flat = torch.full(shape, 0.3, dtype=torch.float64)
    assert torch.allclose(view.view_variance(flat), flat, rtol=0, atol=1e-13)


def test_the_matrix_is_applied_as_it_is_written():
    q, x = random_q(12), torch.randn(2, 3, 3, 4, dtype=torch.float64)
    pixels = Orthogonal(q)(x)
    assert torch.allclose(pixels.flatten(-2), torch.einsum("ij,bcj->bci", q, x.flatten(-2)))
    q = random_q(3)
    colours = Orthogonal(q, over="channels")(x)
    assert torch.allclose(colours, torch.einsum("ij,bjhw->bihw", q, x))


@given(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]), st.integers(0, 9))
def test_half_precision_is_rounded_once(dtype, seed):
    x = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    for view in (Orthogonal(random_q(16)), ColourRotation(40), DetailNegative(2)):
        assert view(x).dtype == dtype
        exact = view(x.double())
        assert (view(x).double() - exact).abs().max() <= torch.finfo(dtype).eps * 8


def test_a_permutation_matrix_is_the_permutation():
    indices = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    view, x = Orthogonal(torch.eye(16)[indices]), torch.rand(1, 4, 4)
    assert torch.equal(view(x), Permutation(indices)(x))
    assert torch.equal(view.view_variance(x), Permutation(indices)(x))


def test_colours_turn_about_grey():
    x = torch.rand(3, 2, 2, dtype=torch.float64)
    grey = x.mean(0, keepdim=True).expand(3, 2, 2)
    seen = ColourRotation(63)(x)
    assert torch.allclose(seen.mean(0), x.mean(0))
    assert torch.allclose(ColourRotation(63)(grey), grey)
    assert torch.allclose(ColourRotation(180)(x), 2 * grey - x)
    red = torch.tensor([1.0, 0, 0])[:, None, None]
    assert torch.allclose(ColourRotation(120)(red), red.roll(1, 0), atol=1e-6)


def test_the_negative_of_details_keeps_means():
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    view, pool = DetailNegative(8), torch.nn.AvgPool2d(4)
    assert torch.allclose(pool(view(x)), pool(x))
    mean = pool(x).repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert torch.allclose(view(x), 2 * mean - x)


@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
def test_views_are_the_same_if_their_numbers_are(n, seed, other):
    q = random_q(n, seed)
    view, again = Orthogonal(q), Orthogonal(q.tolist())
    assert view == again
    assert hash(view) == hash(again)
    assert (view == Orthogonal(random_q(n, other))) == torch.equal(q, random_q(n, other))
    assert view != Orthogonal(q, over="image")
    assert view != Orthogonal(torch.eye(n + 1))


def test_a_matrix_is_read_once():
    """Later writes into the argument change no view."""
    q = torch.eye(4, dtype=torch.float64)
    view, x = Orthogonal(q), torch.rand(1, 2, 2)
    q.zero_()
    assert torch.equal(view(x), x)


def test_a_large_matrix_costs_one_product(monkeypatch):
    """Nothing of the size of the matrix is done number by number in Python."""
    calls = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: pytest.fail("one by one"))
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: calls.append(1) or product(a, b))
    view = Orthogonal(torch.eye(256, dtype=torch.float64).flip(0))
    assert hash(view) == hash(view)
    assert len(calls) == 1


def test_what_is_not_orthogonal_raises():
    with pytest.raises(ValueError, match="must be orthogonal, got Q Q.T off the identity by 3"):
        Orthogonal(2 * torch.eye(4))
    with pytest.raises(ValueError, match="must be square"):
        Orthogonal(torch.eye(4)[:3])
    with pytest.raises(TypeError, match="rows of numbers"):
        Orthogonal("eye")
    with pytest.raises(TypeError, match="rows of numbers"):
        Orthogonal([[1, 0], [0]])
    with pytest.raises(TypeError, match="complex"):
        Orthogonal([[1j]])
    with pytest.raises(ValueError, match="over"):
        Orthogonal(torch.eye(4), over="rows")
    with pytest.raises(ValueError, match="each number from 0 to 2"):
        ChannelPermutation((0, 1, 1))
    with pytest.raises(TypeError, match="degrees"):
        ColourRotation("red")


def test_what_does_not_fit_the_image_is_said():
    assert not Orthogonal(torch.eye(16)).accepts(4, 5)
    assert Orthogonal(torch.eye(48), over="image").accepts(4, 4)
    for view in (ChannelPermutation(), ColourRotation()):
        with pytest.raises(ValueError, match="accepts images of 3 channels, got 1"):
            view(torch.zeros(1, 4, 4))


def test_a_transform_without_defaults_is_not_made_by_name():
    with pytest.raises(TypeError, match=r"Give the object itself, Permutation\(indices=\.\.\.\)"):
        get_transform("permutation")
    with pytest.raises(TypeError, match=r"Orthogonal\(matrix=\.\.\.\)"):
        get_transform("orthogonal")


OTHERS = [
    Permutation(torch.randperm(49, generator=torch.Generator().manual_seed(0))),
    Orthogonal(random_q(4)),
    transforms.PatchPermute(7, seed=4),
    transforms.Jigsaw(3) @ transforms.Roll(5, 0.5),
    (transforms.Shear(0.5, "rows") @ ColourRotation(30)).inverse_transform,
]


def by_name():
    """All registered views that a name alone makes."""
    names = [name for kind, name in composer.installed().offers if kind == "transform"]
    return [get_transform(n) for n in names if n not in ("permutation", "orthogonal")]


@pytest.mark.parametrize("view", [*by_name(), *OTHERS], ids=lambda v: type(v).__name__)
def test_every_view_survives_a_recipe(view):
    registry = composer.installed()
    text = json.dumps(encode(view, registry))
    again = decode(json.loads(text), registry)
    assert again == view
    assert hash(again) == hash(view)
