"""The MNIST UNet rearranged for sampling: cheaper, and equal to the trained one up to rounding.

Three rearrangements, each exact in real arithmetic:

* Batch normalisation is folded into the convolution before it.
* Time and class enter after the encoder, so the encoder runs once per image for any number of
  conditions.
* The first convolution of each decoder stage acts on cat[skip, rest]. A convolution is linear, so
  it is conv(skip) + conv'(rest), and conv(skip) too is shared.

Guidance then costs about 1.5 forwards instead of 2.

It holds no second copy of the network: its own modules run, so that hooks on them, edits of their
weights and ``compile()`` take effect.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from composer_plugins.backends.mnist.unet import (
    Features,
    MnistUNet,
    Modulation,
    modulate,
    of_rows,
)


class FoldedUNet(nn.Module):
    """A trained MnistUNet for inference.

    Args:
        unet: the trained network; it is copied.
    """

    def __init__(self, unet: MnistUNet) -> None:
        super().__init__()
        trained = copy.deepcopy(unet).eval().requires_grad_(False)
        self.config = trained.config
        self.sources, self.num_classes = trained.sources, trained.num_classes
        self.in_channels = trained.in_channels
        width = trained.hidden_size
        self.stem, self.down1 = _folded(trained.stem), _folded(trained.down1)
        self.down2, self.unflatten = _folded(trained.down2), _folded(trained.unflatten)
        self.flatten = trained.flatten
        self.out = trained.out
        self.time1, self.time2 = trained.time1, trained.time2
        self.class1, self.class2 = trained.class1, trained.class2
        self.skip2, self.up1 = _split(trained.up1, 2 * width)
        self.skip1, self.up2 = _split(trained.up2, width)
        self.skip0, self.head = _split(trained.head, width)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval()

    def encode(self, x: Tensor) -> Features:
        """(N, C, 28, 28) -> each skip's part of the convolution it enters, and the bottleneck."""
        x0 = self.stem(x)
        x1 = self.down1(x0)
        x2 = self.down2(x1)
        return Features(
            self.skip0(x0), self.skip1(x1), self.skip2(x2), self.unflatten(self.flatten(x2))
        )

    def decode(self, features: Features, modulation: Modulation) -> Tensor:
        """Features of N images and the modulation of R rows -> prediction (R, C, 28, 28)."""
        x0, x1, x2, z = features
        scale1, scale2, shift1, shift2 = (v[:, :, None, None] for v in modulation)
        u1 = self.up1(_scaled(z, scale1) + shift1, x2)
        u2 = self.up2(scale2 * u1 + shift2, x1)
        return cast(Tensor, self.out(self.head(u2, x0)))

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor, which: Tensor | None = None
    ) -> Tensor:
        """Predict R rows about N images, each of which is encoded once.

        Args:
            sample: the images (N, C, 28, 28).
            timestep: of each row (R,), in [0, 1].
            class_labels: of each row (R,), integers; ``num_classes`` means unconditional.
            which: the image of each row (R,); None for R / N rounds of all images in their order.

        Returns:
            (R, C, 28, 28).
        """
        x = sample.contiguous(memory_format=torch.channels_last)
        features = of_rows(self.encode(x), which)
        return self.decode(features, modulate(self, timestep, class_labels))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights of this network, or of a trained MnistUNet, which are then folded.

        Raises:
            RuntimeError: the weights have another layout.
        """
        if any(name.endswith("running_mean") for name in state_dict):
            trained = MnistUNet.from_config(self.config)
            trained.load_state_dict(state_dict)
            state_dict = FoldedUNet(trained).state_dict()
        return super().load_state_dict(state_dict, strict, assign)


class Activated(nn.Module):
    """A convolution and its GELU, which overwrites the convolution's output. It is one module, so
    that no hook receives a tensor that is overwritten later.

    Args:
        convolution: the convolution to take weights from.
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride = convolution.stride
        self.padding = cast("tuple[int, ...]", convolution.padding)
        self.transposed = convolution.transposed

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """GELU of the convolution of R rows, plus a skip's part of it.

        Args:
            x: (R, C, H, W).
            skip: (N, C', H', W'), of N images; the rows are R / N rounds of them.
        """
        out = torch.convolution(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            dilation=(1, 1),
            transposed=self.transposed,
            output_padding=(0, 0),
            groups=1,
        )
        if skip is not None:
            _rounds(out, len(skip)).add_(skip)
        return cast(Tensor, torch.ops.aten.gelu_(out))


class Stage(nn.Module):
    """A stage of the decoder, without the skip's part of its first convolution.

    Args:
        entry: the first convolution, on the channels that are not the skip's.
        others: the modules after it.
    """

    def __init__(self, entry: Activated, others: nn.Module) -> None:
        super().__init__()
        self.entry, self.others = entry, others

    def forward(self, rest: Tensor, skip: Tensor) -> Tensor:
        """The stage of R rows; arguments as for :class:`Activated`."""
        return cast(Tensor, self.others(self.entry(rest, skip)))


def _scaled(z: Tensor, scale: Tensor) -> Tensor:
    """Features (N, C, H, W) times scales (R, C or 1, 1, 1): (R, C, H, W)."""
    return (_rounds(scale, len(z)) * z).flatten(0, 1)


def _rounds(x: Tensor, count: int) -> Tensor:
    """(R, C, H, W) -> (R / count, count, C, H, W), a view."""
    return cast(Tensor, x.unflatten(0, (-1, count)))


def _folded(module: nn.Module) -> nn.Module:
    """``module`` with each (convolution, batch norm, GELU) replaced by one Activated; consumes
    it."""
    if isinstance(module, nn.Sequential) and isinstance(module[1], nn.BatchNorm2d):
        return Activated(_fused(module))
    for name, child in module.named_children():
        setattr(module, name, _folded(child))
    return module


def _split(stage: nn.Sequential, skip_channels: int) -> tuple[nn.Module, Stage]:
    """A decoder stage as (its first convolution on the skip alone, the stage on the rest)."""
    entry, others = cast("tuple[nn.Sequential, nn.Module]", stage)
    first = _fused(entry)
    axis = 0 if first.transposed else 1
    skip, rest = copy.deepcopy(first), copy.deepcopy(first)
    sizes = [skip_channels, first.in_channels - skip_channels]
    skip.weight, rest.weight = (
        nn.Parameter(part.contiguous(), requires_grad=False)
        for part in first.weight.split(sizes, axis)
    )
    skip.in_channels, rest.in_channels = sizes
    skip.bias = None  # the bias must be added once
    return skip, Stage(Activated(rest), _folded(others))


def _fused(block: nn.Sequential) -> nn.Conv2d | nn.ConvTranspose2d:
    """The convolution that equals a (convolution, batch norm, ...)."""
    convolution = cast("nn.Conv2d | nn.ConvTranspose2d", block[0])
    norm = cast(nn.BatchNorm2d, block[1])
    return fuse_conv_bn_eval(convolution, norm, transpose=convolution.transposed)
