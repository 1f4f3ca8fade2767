"""Tensors sent to a device without a wait for it."""

from __future__ import annotations

from collections.abc import Sequence

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


def numbers_to_device(numbers: Sequence[float], device: torch.device) -> Tensor:
    """Numbers (N,) as float32 on a device, such as a time for each row of a batch.

    Float32 also for a half-precision network: bfloat16 has no 999. Equal numbers, those of most
    steps, are filled in on the device, which is fast.
    """
    if len(set(numbers)) == 1:
        return torch.full((len(numbers),), float(numbers[0]), dtype=torch.float32, device=device)
    return to_device(torch.tensor(numbers, dtype=torch.float32), device)
