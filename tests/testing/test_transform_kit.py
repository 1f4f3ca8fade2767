"""The kit passes every view of the library, and names what is wrong with a spoilt one."""

import itertools
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import find, given
from hypothesis import strategies as st

from composer import Transform, get_transform
from composer.testing import (
    CheckFailed,
    check_transform,
    parametrize_with_checks,
    registered_transforms,
    strategies,
    transform_checks,
)
from composer.testing.transform import CONTRACT
from composer_plugins.transforms import Flip, Negative, Orthogonal, Permutation, Skew

REGISTERED = registered_transforms()
ROTATION = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]
MADE = [
    Flip("horizontal"),
    Skew(20.0, "rows"),
    Permutation(torch.randperm(784, generator=torch.Generator().manual_seed(0)).tolist()),
    Orthogonal(ROTATION, over="channels"),
    Flip() @ Skew() @ Negative(),
]


@parametrize_with_checks([*REGISTERED.values(), *MADE])
def test_every_view_keeps_the_contract(check):
    check()


def test_all_that_can_be_made_by_name_are_examined():
    assert {"identity", "flip", "rotate_cw", "skew", "negative", "jigsaw"} <= REGISTERED.keys()


class FlipLike(Transform):
    """A right view, to be spoilt."""

    def __call__(self, x):
        return x.flip(-2)

    def inverse(self, x):
        return x.flip(-2)

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self):
        return hash(type(self))


class CopiedPixel(FlipLike):
    def __call__(self, x):
        seen = x.flip(-2)
        seen[..., 0, 0] = seen[..., 0, -1]
        return seen


class CopiedPixelWhenLarge(FlipLike):
    """One pixel of 65536, at one size."""

    def __call__(self, x):
        seen = x.flip(-2)
        if x.shape[-1] == 256:
            seen[..., 100, 100] = seen[..., 100, 101]
        return seen


class SwappedPixels(FlipLike):
    """The inverse does not undo the swap."""

    def __call__(self, x):
        seen = x.flip(-2)
        seen[..., 0, [0, 1]] = seen[..., 0, [1, 0]]
        return seen


class InPlace(FlipLike):
    def __call__(self, x):
        x.copy_(x.flip(-2))
        return x.clone()


class InPlaceInverse(FlipLike):
    def inverse(self, x):
        return x.copy_(x.flip(-2))


class WrongInverse(FlipLike):
    def inverse(self, x):
        return x.flip(-1)


class Scaled(FlipLike):
    """Inverted rightly, all the same."""

    def __call__(self, x):
        return x.flip(-2) * 1.001

    def inverse(self, x):
        return x.flip(-2) / 1.001


class Sheared(FlipLike):
    """Invertible and linear, but not orthogonal."""

    def __call__(self, x):
        return torch.cat([x[..., :1] + x[..., 1:2], x[..., 1:]], -1)

    def inverse(self, x):
        return torch.cat([x[..., :1] - x[..., 1:2], x[..., 1:]], -1)


class Shifted(FlipLike):
    def __call__(self, x):
        return x.flip(-2) + 0.1


class Absolute(FlipLike):
    def __call__(self, x):
        return x.flip(-2).abs()


class Cropped(FlipLike):
    def __call__(self, x):
        return x.flip(-2)[..., 1:, :]


class ToFloat32(FlipLike):
    def __call__(self, x):
        return x.flip(-2).float()


class HalfPrecision(FlipLike):
    """float32 back, bfloat16 in between."""

    def __call__(self, x):
        seen = x.flip(-2)
        return seen.bfloat16().to(x.dtype) if x.dtype == torch.float32 else seen


class BatchMixing(FlipLike):
    def __call__(self, x):
        return x.flip(-2).roll(1, 0) if x.ndim == 4 else x.flip(-2)

    def inverse(self, x):
        return x.flip(-2).roll(-1, 0) if x.ndim == 4 else x.flip(-2)


class OneLeadingDimension(FlipLike):
    def __call__(self, x):
        return x.flip(2) if x.ndim > 3 else x.flip(-2)

    inverse = __call__


class GlobalTorch(FlipLike):
    def __call__(self, x):
        torch.rand(1)
        return x.flip(-2)


class GlobalNumpy(FlipLike):
    def __call__(self, x):
        np.random.rand()
        return x.flip(-2)


class GlobalPython(FlipLike):
    def __call__(self, x):
        random.random()
        return x.flip(-2)


class ReseedsGlobal(FlipLike):
    def __call__(self, x):
        torch.manual_seed(0)
        return x[..., torch.randperm(x.shape[-1])]

    def inverse(self, x):
        torch.manual_seed(0)
        return x[..., torch.randperm(x.shape[-1]).argsort()]


class ReadsGlobal(FlipLike):
    """Leaves the generator as it was, yet depends on it."""

    def __call__(self, x):
        return x[..., self.order(x)]

    def inverse(self, x):
        return x[..., self.order(x).argsort()]

    def order(self, x):
        with torch.random.fork_rng():
            return torch.randperm(x.shape[-1])


ORDERS = {}


class CachedGlobal(FlipLike):
    """Draws at the first call of a size only."""

    def __call__(self, x):
        return x[..., self.order(x)]

    def inverse(self, x):
        return x[..., self.order(x).argsort()]

    def order(self, x):
        length = x.shape[-1]
        if length not in ORDERS:
            ORDERS[length] = torch.randperm(length)
        return ORDERS[length]


COUNT = itertools.count()


class Nondeterministic(FlipLike):
    def __call__(self, x):
        return x.flip(-2) if next(COUNT) % 2 else x.flip(-1)


class WrongWhenOblong(FlipLike):
    def __call__(self, x):
        return x.flip(-2) if x.shape[-1] == x.shape[-2] else x.flip(-2).roll(1, -1)


class TurnsOblong(FlipLike):
    def __call__(self, x):
        return x.transpose(-2, -1).clone()

    inverse = __call__


class NeedsContiguous(FlipLike):
    def __call__(self, x):
        return x.view(-1, *x.shape[-2:]).flip(-2).view(x.shape)


class ReadsStorage(FlipLike):
    """Right where the image lies in order, wrong elsewhere."""

    def __call__(self, x):
        return torch.as_strided(x, x.shape, torch.empty(x.shape).stride()).flip(-2)


class Unhashable(FlipLike):
    __hash__ = None


class UnequalCopies(FlipLike):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True)
class DrawnWhenMade(FlipLike):
    """Equal objects that see other images."""

    shift: int = field(init=False, compare=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "shift", next(COUNT) % 5)

    def __call__(self, x):
        return x.roll(self.shift, -1)

    def inverse(self, x):
        return x.roll(-self.shift, -1)

    def __deepcopy__(self, memo):
        return self


class LateFrame(FlipLike):
    def frame(self, x, u):
        return torch.lerp(x, self(x), 0.99 * u)


class FrameWrites(FlipLike):
    def frame(self, x, u):
        return x.lerp_(self(x), u)


class FrameOfFloat32(FlipLike):
    def frame(self, x, u):
        return super().frame(x, u) if u in (0, 1) else x.float()


class MinusWithoutVariance(FlipLike):
    def __call__(self, x):
        return -x

    inverse = __call__


class WrongInverseTransform(FlipLike):
    @property
    def inverse_transform(self):
        return Flip("horizontal")


class VagueAccepts(FlipLike):
    def accepts(self, height, width):
        return None if height % 2 else True


class SilentSizes(FlipLike):
    def accepts(self, height, width):
        return height % 2 == 0


class Raises(FlipLike):
    def __call__(self, x):
        raise RuntimeError("boom")


SPOILT = [
    (CopiedPixel, "orthogonal_matrix"),
    (CopiedPixel, "norm"),
    (CopiedPixelWhenLarge, "norm"),
    (SwappedPixels, "inverse_on_both_sides"),
    (InPlace, "no_mutation"),
    (InPlaceInverse, "no_mutation"),
    (WrongInverse, "inverse_on_both_sides"),
    (WrongInverse, "inverse_is_adjoint"),
    (Scaled, "orthogonal_matrix"),
    (Scaled, "norm"),
    (Scaled, "inverse_is_adjoint"),
    (Sheared, "inner_product"),
    (Shifted, "linear"),
    (Absolute, "linear"),
    (Absolute, "gaussian_noise"),
    (Cropped, "shape"),
    (ToFloat32, "dtype_and_device"),
    (HalfPrecision, "dtype_and_device"),
    (BatchMixing, "by_image"),
    (OneLeadingDimension, "leading_dimensions"),
    (GlobalTorch, "global_generators"),
    (GlobalNumpy, "global_generators"),
    (GlobalPython, "global_generators"),
    (ReseedsGlobal, "global_generators"),
    (ReadsGlobal, "global_generators"),
    (CachedGlobal, "global_generators"),
    (Nondeterministic, "deterministic"),
    (WrongWhenOblong, "inverse_on_both_sides"),
    (TurnsOblong, "shape"),
    (NeedsContiguous, "non_contiguous"),
    (ReadsStorage, "non_contiguous"),
    (Unhashable, "equal_copies"),
    (UnequalCopies, "equal_copies"),
    (DrawnWhenMade, "equal_copies"),
    (LateFrame, "frame"),
    (FrameWrites, "frame"),
    (FrameOfFloat32, "frame"),
    (MinusWithoutVariance, "variance"),
    (WrongInverseTransform, "algebra"),
    (VagueAccepts, "accepted_sizes"),
    (SilentSizes, "accepted_sizes"),
    (Raises, "shape"),
]


def failures(transform):
    outcomes = [check.outcome() for check in transform_checks(transform)]
    return {o.check.name: o.why for o in outcomes if o.status == "failed"}


@pytest.mark.parametrize(("spoilt", "name"), SPOILT)
def test_a_spoilt_view_is_caught_by_name(spoilt, name):
    check = next(c for c in transform_checks(spoilt()) if c.name == name)
    with pytest.raises(CheckFailed, match=rf"{spoilt.__name__}.* fails {name} \(.*\); \w"):
        check()


def test_every_mathematical_and_practical_law_can_fail():
    """But for the recipe, which is spoilt below: it needs a registry."""
    assert {name for _, name in SPOILT} == {law.__name__ for law in CONTRACT} - {"recipe"}


def test_every_check_has_its_line_in_the_documentation():
    page = Path(__file__).parents[2] / "docs" / "write-a-transform.md"
    table = page.read_text().split("## The checks")[1].split("## A decomposition")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", "".join(rows)) == [law.__name__ for law in CONTRACT]


# Unspoilt where what is wrong is one thing only.
@pytest.mark.parametrize(
    ("spoilt", "names"),
    [
        (NeedsContiguous, {"non_contiguous"}),
        (LateFrame, {"frame"}),
        (Unhashable, {"equal_copies"}),
        (MinusWithoutVariance, {"variance"}),
        (GlobalNumpy, {"global_generators"}),
    ],
)
def test_what_is_right_is_not_blamed(spoilt, names):
    assert failures(spoilt()).keys() == names


def test_check_transform_tells_of_all_that_failed_and_what_to_mend():
    with pytest.raises(CheckFailed) as caught:
        check_transform(Scaled())
    text = str(caught.value)
    assert "norm (|f(x)| of 28x28 images is off by the factor 0.001); move, rotate" in text
    assert "orthogonal_matrix (Q^T Q" in text
    with pytest.raises(TypeError, match="is no Transform"):
        check_transform(torch.flip)


class OnlyLarge(FlipLike):
    def accepts(self, height, width):
        return height == width == 2000

    @property
    def sizes(self):
        return "2000x2000"


def test_sizes_may_be_given():
    assert "give shapes=" in transform_checks(OnlyLarge())[0].outcome().why
    shaped = transform_checks(FlipLike(), shapes=[(1, 5, 9)])
    assert {c.outcome().status for c in shaped} == {"passed", "skipped"}  # it is unregistered


@pytest.fixture
def registered(monkeypatch):
    from composer import Register, installed
    from composer.testing import transform_conduct

    def register(name, factory):
        offered = Register("test")
        offered.transform(name, factory)
        registry = installed().with_offers(offered)
        monkeypatch.setattr(transform_conduct, "installed", lambda: registry)

    return register


@dataclass(frozen=True)
class Forgetful(FlipLike):
    """Keeps its parameter under another name."""

    shift: int = 1

    def __post_init__(self):
        object.__setattr__(self, "shift", self.shift + 1)


class Opaque(FlipLike):
    def __init__(self, names=frozenset({1})):
        self.names = names


def test_a_recipe_must_bring_the_view_back(registered):
    check = next(c for c in transform_checks(Forgetful()) if c.name == "recipe")
    assert check.outcome().status == "skipped"
    registered("forgetful", Forgetful)
    with pytest.raises(CheckFailed, match=r"fails recipe \(Forgetful.* comes back as"):
        check()
    registered("opaque", Opaque)
    check = next(c for c in transform_checks(Opaque()) if c.name == "recipe")
    with pytest.raises(CheckFailed, match="a recipe cannot hold its parameters"):
        check()


@given(strategies.images(strategies.image_shapes(square=True), strategies.dtypes()), st.data())
def test_the_strategies_go_together(x, data):
    view = data.draw(strategies.transforms(*x.shape[-2:], x.shape[-3]))
    torch.testing.assert_close(
        view.inverse(view(x)), x, rtol=0, atol=64 * torch.finfo(x.dtype).eps * x.abs().max().item()
    )


def test_strategies_shrink_to_what_one_would_try_first():
    assert find(strategies.image_shapes(), lambda s: True) == (1, 1, 1)
    assert find(strategies.image_shapes(), lambda s: s[-1] > 2) == (1, 1, 3)
    assert find(strategies.dtypes(), lambda d: True) == torch.float64
    assert find(strategies.transforms(), lambda t: True) == get_transform("identity")
    seen = find(strategies.images(), lambda x: not torch.equal(CopiedPixel()(x), x.flip(-2)))
    assert seen.tolist() == [[[0.0, 1.0]]]
