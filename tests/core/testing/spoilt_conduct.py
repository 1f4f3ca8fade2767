"""Views that are right as maps and misbehave: they write, draw, forget; each with its checks."""

import itertools
import random
from dataclasses import dataclass, field

import numpy as np
import torch
from spoilt_maps import FlipLike

from composer_plugins.transforms import Flip


class InPlace(FlipLike):
    def __call__(self, x):
        x.copy_(x.flip(-2))
        return x.clone()


class InPlaceInverse(FlipLike):
    def inverse(self, x):
        return x.copy_(x.flip(-2))


class ToFloat32(FlipLike):
    def __call__(self, x):
        return x.flip(-2).float()


class HalfPrecision(FlipLike):
    """float32 back, bfloat16 in between."""

    def __call__(self, x):
        seen = x.flip(-2)
        return seen.bfloat16().to(x.dtype) if x.dtype == torch.float32 else seen


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


class DefaultDtype(FlipLike):
    def __call__(self, x):
        torch.set_default_dtype(torch.float64)
        return x.flip(-2)


class Threads(FlipLike):
    def __call__(self, x):
        torch.set_num_threads(1)
        return x.flip(-2)


class VarianceInFloat64(FlipLike):
    def inverse_variance(self, variance):
        return variance.flip(-2).double()


class VarianceInPlace(FlipLike):
    def view_variance(self, variance):
        return variance.copy_(variance.flip(-2)).clone()


class FadedInFloat32(FlipLike):
    """frame(x, 0) is half of x, in one dtype."""

    def frame(self, x, u):
        return super().frame(x, u) * (1 if x.dtype == torch.float64 else 0.5)


class FadedWhenLarge(FlipLike):
    def frame(self, x, u):
        return super().frame(x, u) * (1 if x.shape[-1] < 200 else 0.5)


class FrameOfBatches(FlipLike):
    def frame(self, x, u):
        return super().frame(x.reshape(-1, *x.shape[-3:]) if x.ndim == 4 else x[:, None], u)


class RandomFrame(FlipLike):
    def frame(self, x, u):
        picture = super().frame(x, u)
        return picture if u in (0, 1) else picture + torch.randn_like(picture)


class MixedFrame(FlipLike):
    """An image's way shows another image of the batch."""

    def frame(self, x, u):
        picture = super().frame(x, u)
        return picture if u in (0, 1) else picture.flip(0)


CONDUCT = [
    (InPlace, "no_mutation"),
    (InPlaceInverse, "no_mutation"),
    (VarianceInPlace, "no_mutation"),
    (ToFloat32, "dtype_and_device"),
    (HalfPrecision, "dtype_and_device"),
    (VarianceInFloat64, "dtype_and_device"),
    (GlobalTorch, "global_state"),
    (GlobalNumpy, "global_state"),
    (GlobalPython, "global_state"),
    (ReseedsGlobal, "global_state"),
    (ReadsGlobal, "global_state"),
    (CachedGlobal, "global_state"),
    (DefaultDtype, "global_state"),
    (Threads, "global_state"),
    (Nondeterministic, "deterministic"),
    (NeedsContiguous, "non_contiguous"),
    (ReadsStorage, "non_contiguous"),
    (Unhashable, "equal_copies"),
    (UnequalCopies, "equal_copies"),
    (DrawnWhenMade, "equal_copies"),
    (WrongInverseTransform, "algebra"),
    (VagueAccepts, "accepted_sizes"),
    (SilentSizes, "accepted_sizes"),
    (LateFrame, "frame"),
    (FrameWrites, "frame"),
    (FadedInFloat32, "frame"),
    (FadedWhenLarge, "frame"),
    (FrameWrites, "frame_between"),
    (FrameOfFloat32, "frame_between"),
    (FrameOfBatches, "frame_between"),
    (RandomFrame, "frame_between"),
    (MixedFrame, "frame_between"),
]
