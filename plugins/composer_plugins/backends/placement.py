"""Device and dtype of a network, from the options of a loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from composer.named import Device, DType, device_of, dtype_of

DTYPES = ("float32", "bfloat16", "float16")
"""Dtypes that all shipped networks compute in."""
WITH_FLOAT64 = (*DTYPES, "float64")
"""Dtypes of networks that diffusers reads; x in the loop follows float64."""

# Processors that multiply in bfloat16; others emulate it and are slower than in float32.
_BF16_ARITHMETIC = "avx512_bf16", "amx_bf16"


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device computes faster in bfloat16; False for unknown devices."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in _BF16_ARITHMETIC)


def placement(
    device: Device, dtype: DType, known: Iterable[str] = DTYPES
) -> tuple[torch.device, torch.dtype]:
    """The device and the dtype of torch objects or their names.

    Args:
        known: the names of dtypes to choose from.

    Raises:
        ValueError: a name is unknown, or this machine lacks the device, or the device the dtype.
    """
    kind = dtype_of(dtype, known)
    place = device_of(device)
    if place.type == "mps" and kind == torch.float64:
        raise ValueError("dtype must be float32 or narrower on mps, got 'float64'. Use 'float32'.")
    return place, kind


def loop_dtype(network: torch.dtype) -> torch.dtype:
    """The dtype of x in the loop for a network's: float32 at least."""
    return torch.promote_types(network, torch.float32)


def place_of(network: Any) -> tuple[torch.device, torch.dtype]:
    """The current device and dtype of a network: those of its first parameter.

    For a network of diffusers that offloads its weights, or stores them in fewer bits than it
    computes in, its own attributes decide. They walk through all modules, which takes as long as a
    small step.
    """
    for module in network.modules():
        if "_diffusers_hook" in vars(module):  # hasattr is slow where a module lacks it
            break
        for parameter in module.parameters(recurse=False):
            return parameter.device, parameter.dtype
    return network.device, network.dtype
