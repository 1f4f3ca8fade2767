"""Where a network runs and in what it computes, from the options of a loader."""

from __future__ import annotations

from typing import Any

import torch

from composer.named import Device, DType, device_of, dtype_of

DTYPES = ("float32", "bfloat16", "float16")
"""Those that the shipped networks compute in."""

# Processors that multiply in bfloat16; the others take it apart, and are slower than in float32.
_BF16_ARITHMETIC = "avx512_bf16", "amx_bf16"


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is the faster arithmetic of a device; False of what is not known."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in _BF16_ARITHMETIC)


def placement(device: Device, dtype: DType) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of these objects or names.

    Raises:
        ValueError: no such name, or a device that this machine lacks.
    """
    kind = dtype_of(dtype, DTYPES)
    return device_of(device), kind


def place_of(network: Any) -> tuple[torch.device, torch.dtype]:
    """Where a network computes, and in what: as its first parameter is, now.

    A network of diffusers that offloads its weights, or stores them in fewer bits than it computes
    in, is asked itself: it looks through all of its modules, which takes as long as a small step.
    """
    for module in network.modules():
        if hasattr(module, "_diffusers_hook"):
            break
        for parameter in module.parameters(recurse=False):
            return parameter.device, parameter.dtype
    return network.device, network.dtype
