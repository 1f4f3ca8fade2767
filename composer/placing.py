"""Tensors sent to a device without a wait for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, such as times and labels that were made of a list.

    A plain copy of the CPU's memory to a CUDA device waits for all that the device has yet to do,
    and so does ``torch.tensor(..., device=device)``; one of pinned memory does not.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
