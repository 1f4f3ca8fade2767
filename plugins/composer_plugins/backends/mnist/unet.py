"""The MNIST UNet: two scales, a 7x7 bottleneck, time and class entering after the encoder.

With width D and skips x0 (D, 28, 28), x1 (D, 14, 14), x2 (2D, 7, 7)::

    z  = unflatten(flatten(x2))                        (2D, 7, 7), a function of x alone
    u1 = up1(cat[x2, c1 * z + t1])                     (D, 14, 14)
    u2 = up2(cat[x1, c2 * u1 + t2])                    (D, 28, 28)
    out = head(cat[x0, u2])                            (1, 28, 28)

where t1, c1 are 2D-vectors and t2, c2 are D-vectors computed from the time and the class.
Because the encoder never sees time or class, everything up to ``z`` is the same for every
condition asked at one x; :mod:`.folded` uses that to make guidance cheap.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.GELU())


def down_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.GELU())


def up_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.GELU()
    )


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))


def down_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(down_conv(inputs, outputs), conv_block(outputs, outputs))


def up_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(up_conv(inputs, outputs), conv_block(outputs, outputs))


def fc_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.Linear(outputs, outputs))


class Features(NamedTuple):
    """What the encoder knows of x: three skips and the unmodulated bottleneck."""

    x0: Tensor
    x1: Tensor
    x2: Tensor
    z: Tensor


class Modulation(NamedTuple):
    """Shifts t1, c-scales c1 (B, 2D) for the bottleneck and t2, c2 (B, D) for up1's output."""

    t1: Tensor
    t2: Tensor
    c1: Tensor
    c2: Tensor


class MnistUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """Time- and class-conditioned UNet for 28x28 images.

    Args:
        in_channels: image channels C.
        hidden_size: the width D; 64 gives 1.98 M parameters.
        num_classes: number of labels; the label ``num_classes`` means unconditional.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # and so is this
    def __init__(self, in_channels: int = 1, hidden_size: int = 64, num_classes: int = 10) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        d = hidden_size
        self.in_channels, self.hidden_size = in_channels, hidden_size
        self.num_classes = num_classes
        self.stem = conv_block(in_channels, d)
        self.down1 = down_block(d, d)
        self.down2 = down_block(d, 2 * d)
        self.flatten = nn.Sequential(nn.AvgPool2d(7), nn.GELU())
        self.unflatten = nn.Sequential(
            nn.ConvTranspose2d(2 * d, 2 * d, 7, 7, 0), nn.BatchNorm2d(2 * d), nn.GELU()
        )
        self.time1, self.time2 = fc_block(1, 2 * d), fc_block(1, d)
        self.class1, self.class2 = fc_block(num_classes, 2 * d), fc_block(num_classes, d)
        self.up1 = up_block(4 * d, d)
        self.up2 = up_block(2 * d, d)
        self.head = conv_block(2 * d, d)
        self.out = nn.Conv2d(d, in_channels, 3, 1, 1)

    def encode(self, x: Tensor) -> Features:
        """(B, C, 28, 28) -> the features that every condition shares."""
        x0 = self.stem(x)
        x1 = self.down1(x0)
        x2 = self.down2(x1)
        return Features(x0, x1, x2, self.unflatten(self.flatten(x2)))

    def modulate(self, time: Tensor, labels: Tensor) -> Modulation:
        """Times in [0, 1] (B,) and integer labels (B,) -> shifts and scales."""
        t = time[:, None]
        # num_classes is one class too many on purpose: its one-hot, cut, is the zero vector.
        c = F.one_hot(labels, self.num_classes + 1)[:, : self.num_classes].to(t.dtype)
        return Modulation(self.time1(t), self.time2(t), self.class1(c), self.class2(c))

    def decode(self, features: Features, modulation: Modulation) -> Tensor:
        """Features and modulation of the same B rows -> prediction (B, C, 28, 28)."""
        t1, t2, c1, c2 = (v[:, :, None, None] for v in modulation)
        u1 = self.up1(torch.cat([features.x2, c1 * features.z + t1], 1))
        u2 = self.up2(torch.cat([features.x1, c2 * u1 + t2], 1))
        return cast(Tensor, self.out(self.head(torch.cat([features.x0, u2], 1))))

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
        """Predict from ``sample`` (B, C, 28, 28), times (B,) in [0, 1] and labels (B,)."""
        return self.decode(self.encode(sample), self.modulate(timestep, class_labels))
