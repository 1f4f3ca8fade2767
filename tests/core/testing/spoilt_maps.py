"""Views that are not what they should be: linear, orthogonal, and undone; each with its checks."""

import math

import torch

from composer import Transform


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


class BatchMixing(FlipLike):
    def __call__(self, x):
        return x.flip(-2).roll(1, 0) if x.ndim == 4 else x.flip(-2)

    def inverse(self, x):
        return x.flip(-2).roll(-1, 0) if x.ndim == 4 else x.flip(-2)


class OneLeadingDimension(FlipLike):
    def __call__(self, x):
        return x.flip(2) if x.ndim > 3 else x.flip(-2)

    inverse = __call__


class WrongWhenOblong(FlipLike):
    def __call__(self, x):
        return x.flip(-2) if x.shape[-1] == x.shape[-2] else x.flip(-2).roll(1, -1)


class TurnsOblong(FlipLike):
    def __call__(self, x):
        return x.transpose(-2, -1).clone()

    inverse = __call__


class MinusWithoutVariance(FlipLike):
    def __call__(self, x):
        return -x

    inverse = __call__


class Raises(FlipLike):
    def __call__(self, x):
        raise RuntimeError("boom")


class WrongInGray(FlipLike):
    """Right for three channels."""

    def __call__(self, x):
        seen = x.flip(-2)
        if x.shape[-3] == 1:
            seen[..., 0, 0] = seen[..., 0, 1]
        return seen


class DoubledInFourChannels(FlipLike):
    def __call__(self, x):
        return x.flip(-2) * (2 if x.shape[-3] == 4 else 1)


class CrashesInGray(FlipLike):
    """A number of channels is refused by a ValueError."""

    def __call__(self, x):
        return x[..., [0, 1, 2], :, :].flip(-2)


class DoubledWhenLong(FlipLike):
    def __call__(self, x):
        return x.flip(-2) * (2 if x.shape[-1] > 2 * x.shape[-2] else 1)


class DoubledWhenLarge(FlipLike):
    def __call__(self, x):
        return x.flip(-2) * (2 if x.shape[-1] > 256 else 1)


class DoubledBothWaysWhenLarge(DoubledWhenLarge):
    """Inverted rightly, all the same."""

    def inverse(self, x):
        return x.flip(-2) / (2 if x.shape[-1] > 256 else 1)


class RoughWhenLarge(FlipLike):
    """In float32 only."""

    def __call__(self, x):
        large = x.dtype == torch.float32 and x.shape[-1] >= 128
        return x.flip(-2) * (1.1 if large else 1)


class InfiniteInHalf(FlipLike):
    def __call__(self, x):
        large = x.dtype == torch.float16 and x.shape[-1] >= 128
        return x.flip(-2) * (math.inf if large else 1)


class RoundedIndices(FlipLike):
    """bfloat16 counts to 256."""

    def __call__(self, x):
        last = x.shape[-2] - 1
        return x.index_select(-2, torch.arange(last, -1, -1, dtype=x.dtype).long().clamp(0, last))


class CrashesWhenLarge(FlipLike):
    def __call__(self, x):
        if x.shape[-1] > 600:
            raise RuntimeError("too large")
        return x.flip(-2)


class CrashesWhenTiny(FlipLike):
    def __call__(self, x):
        if x.shape[-1] < 5:
            raise RuntimeError("too small")
        return x.flip(-2)


class VarianceOfOne(FlipLike):
    def inverse_variance(self, variance):
        return variance.flip(-2) if len(variance) == 1 else variance


class VarianceOfSquares(FlipLike):
    def inverse_variance(self, variance):
        square = variance.shape[-1] == variance.shape[-2]
        return variance.flip(-2) if square else variance


class VarianceOfSmall(FlipLike):
    def inverse_variance(self, variance):
        return variance.flip(-2) if variance.shape[-1] < 20 else variance


class Detached(FlipLike):
    def __call__(self, x):
        return x.detach().flip(-2)


class KeepsInferenceTensors(FlipLike):
    """Made in inference mode, its indices serve no gradients later."""

    def __init__(self):
        self.kept = {}

    def __call__(self, x):
        last = x.shape[-2] - 1
        if last not in self.kept:
            self.kept[last] = torch.arange(last, -1, -1)
        return x.index_select(-2, self.kept[last])


MAPS = [
    (CopiedPixel, "orthogonal_matrix"),
    (CopiedPixel, "norm"),
    (CopiedPixelWhenLarge, "norm"),
    (SwappedPixels, "inverse_on_both_sides"),
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
    (BatchMixing, "by_image"),
    (OneLeadingDimension, "leading_dimensions"),
    (WrongWhenOblong, "inverse_on_both_sides"),
    (TurnsOblong, "shape"),
    (MinusWithoutVariance, "variance"),
    (Raises, "shape"),
    (WrongInGray, "orthogonal_matrix"),
    (WrongInGray, "norm"),
    (DoubledInFourChannels, "orthogonal_matrix"),
    (CrashesInGray, "shape"),
    (DoubledWhenLong, "norm"),
    (DoubledWhenLarge, "every_size"),
    (DoubledBothWaysWhenLarge, "every_size"),
    (RoughWhenLarge, "every_size"),
    (InfiniteInHalf, "every_size"),
    (RoundedIndices, "every_size"),
    (CrashesWhenLarge, "every_size"),
    (CrashesWhenTiny, "every_size"),
    (VarianceOfOne, "variance"),
    (VarianceOfSquares, "variance"),
    (VarianceOfSmall, "variance"),
    (Detached, "gradient"),
    (KeepsInferenceTensors, "gradient"),
]
