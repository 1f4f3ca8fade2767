"""Tensors sent to a device without a wait for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device, for example times or labels made from a list.

    A plain copy from the CPU to a CUDA device waits until the device has finished its queue, as
    does ``torch.tensor(..., device=device)``. A copy from pinned memory does not wait.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
