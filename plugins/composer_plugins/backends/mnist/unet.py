"""The MNIST UNet: two scales, a 7x7 bottleneck, time and class entering after the encoder.

With width D and skips x0 (D, 28, 28), x1 (D, 14, 14), x2 (2D, 7, 7)::

    z  = unflatten(flatten(x2))                        (2D, 7, 7), a function of x alone
    u1 = up1(cat[x2, scale1 * z + shift1])             (D, 14, 14)
    u2 = up2(cat[x1, scale2 * u1 + shift2])            (D, 28, 28)
    out = head(cat[x0, u2])                            (1, 28, 28)

where scale1, shift1 are 2D-vectors and scale2, shift2 are D-vectors computed from the time and the
class, according to CONDITIONINGS. The encoder does not depend on time or class, so everything up to
``z`` is the same for every condition at one x; :mod:`.folded` uses that to make guidance cheap.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from composer import UnknownNameError


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


class Conditioning(NamedTuple):
    """The inputs of the scale and the shift of features: "time", "class", or constants."""

    scale: str
    shift: str


CONDITIONINGS = {
    "class": Conditioning(scale="class", shift="time"),
    "add": Conditioning(scale="one", shift="time"),
    "multiply": Conditioning(scale="time", shift="zero"),
    "none": Conditioning(scale="one", shift="zero"),
}
"""{name: conditioning}: time and class; time alone, added (the course's DDPM) or multiplied (its
flow); or none (its one-step denoiser)."""


class Features(NamedTuple):
    """The outputs of the encoder: three skips and the unmodulated bottleneck."""

    x0: Tensor
    x1: Tensor
    x2: Tensor
    z: Tensor


class Modulation(NamedTuple):
    """Of the bottleneck, (B, 2D), and of up1's output, (B, D); constants are (B, 1)."""

    scale1: Tensor
    scale2: Tensor
    shift1: Tensor
    shift2: Tensor


class MnistUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """UNet for 28x28 images, conditioned on time and class, on time alone, or on nothing.

    Args:
        in_channels: image channels C.
        hidden_size: the width D; 64 gives 1.98 M parameters.
        num_classes: number of labels; the label ``num_classes`` means unconditional. 0 for the
            conditionings without a class.
        conditioning: a key of CONDITIONINGS.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # and so is this
    def __init__(
        self,
        in_channels: int = 1,
        hidden_size: int = 64,
        num_classes: int = 10,
        conditioning: str = "class",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if conditioning not in CONDITIONINGS:
            raise UnknownNameError("conditioning", conditioning, CONDITIONINGS)
        self.conditioning, self.sources = conditioning, CONDITIONINGS[conditioning]
        if ("class" in self.sources) != (num_classes > 0):
            raise ValueError(
                "MnistUNet: num_classes must be "
                f"{'above' if 'class' in self.sources else 'equal to'} 0 with conditioning "
                f"{conditioning!r}, got {num_classes}."
            )
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
        for source, inputs in (("time", 1), ("class", num_classes)):
            for place, outputs in ((1, 2 * d), (2, d)):
                block = fc_block(inputs, outputs) if source in self.sources else None
                setattr(self, f"{source}{place}", block)
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

    def decode(self, features: Features, modulation: Modulation) -> Tensor:
        """Features and modulation of the same B rows -> prediction (B, C, 28, 28)."""
        scale1, scale2, shift1, shift2 = (v[:, :, None, None] for v in modulation)
        u1 = self.up1(torch.cat([features.x2, scale1 * features.z + shift1], 1))
        u2 = self.up2(torch.cat([features.x1, scale2 * u1 + shift2], 1))
        return cast(Tensor, self.out(self.head(torch.cat([features.x0, u2], 1))))

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor, which: Tensor | None = None
    ) -> Tensor:
        """Predict R rows about N images.

        Args:
            sample: the images (N, C, 28, 28).
            timestep: of each row (R,), in [0, 1].
            class_labels: of each row (R,), integers; ``num_classes`` means unconditional.
            which: the image of each row (R,); None for R / N rounds of all images in their order.

        Returns:
            (R, C, 28, 28).
        """
        if which is None and len(timestep) != len(sample):
            which = torch.arange(len(timestep), device=sample.device) % len(sample)
        features = of_rows(self.encode(sample), which)
        return self.decode(features, modulate(self, timestep, class_labels))


def of_rows(features: Features, which: Tensor | None) -> Features:
    """The features of N images -> those of R rows; ``which`` (R,) is the image of each row."""
    return features if which is None else Features(*(part[which] for part in features))


def modulate(unet: Any, time: Tensor, labels: Tensor) -> Modulation:
    """The scales and shifts of R rows.

    Args:
        unet: holds the blocks that make them, ``sources`` and ``num_classes``.
        time: (R,), in [0, 1].
        labels: (R,), integers.
    """
    t = time[:, None]
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    vectors = {"one": (one, one), "zero": (zero, zero)}
    if "time" in unet.sources:
        vectors["time"] = unet.time1(t), unet.time2(t)
    if "class" in unet.sources:
        # num_classes is one class more on purpose: its one-hot, cut off, is the zero vector.
        c = F.one_hot(labels, unet.num_classes + 1)[:, : unet.num_classes].to(t.dtype)
        vectors["class"] = unet.class1(c), unet.class2(c)
    return Modulation(*vectors[unet.sources.scale], *vectors[unet.sources.shift])
