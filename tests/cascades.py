"""Exact models of growing size, and ways from one to the next, that tests of cascades share."""

from dataclasses import dataclass

import torch
from conftest import mixture
from torch.nn import functional as F

from composer import hookimpl
from composer_plugins import DDNM, BlockMean, SDEdit


def exact_models(sizes=(8, 16), **options):
    return [mixture(shape=(1, size, size), **options) for size in sizes]


def agreeing(x):
    """Shows a model of twice the size what to agree with: its means of 2 x 2."""
    return DDNM(x, BlockMean(2))


def resembling(x):
    """Lets a model of twice the size start from the image."""
    return SDEdit(F.interpolate(x, scale_factor=2), 0.5)


def picture(size, channels=1):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(channels, size, size, generator=generator, dtype=torch.float64) * 2 - 1


def halved(image, times):
    """(C, H, W) -> the means of blocks of 2^times pixels a side."""
    side = 2**times
    return image.unflatten(-1, (-1, side)).unflatten(-3, (-1, side)).mean((-1, -3))


@dataclass(eq=False)
class Recorder:
    """A plugin that says what it was asked to be, and of what images and conditions it hears."""

    heard: list
    size: tuple | None = None

    def resized(self, height, width):
        return Recorder(self.heard, (height, width))

    @hookimpl
    def noise_estimate(self, request):
        self.heard.append((self.size, tuple(request.x.shape[-2:]), request.condition))
        return (yield [request])[0]
