"""A UNet2DModel of diffusers as a Trainer calls a network."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn


class Timed(nn.Module):
    """A UNet2DModel with the signature that a Trainer calls: times in [0, 1), and labels.

    Args:
        unet: called as unet(x, t, class_labels=labels), t from 0 to num_train_timesteps - 1.
    """

    def __init__(self, unet: Any, num_train_timesteps: int) -> None:
        super().__init__()
        self.unet, self.count = unet, num_train_timesteps

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """x (B, C, H, W), times t / T (B,), labels (B,) -> the prediction at x."""
        taken = labels if self.unet.config.num_class_embeds is not None else None
        out = self.unet(x, (times * self.count).round(), class_labels=taken)
        return cast(Tensor, out.sample)
