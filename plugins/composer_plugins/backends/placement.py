"""Where a network runs and in what it computes, from the options of a loader."""

from __future__ import annotations

from typing import Any

import torch

from composer.arguments import choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

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


def placement(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of these names.

    Raises:
        ValueError: no such name, or a device that this machine lacks.
    """
    choice(dtype, "dtype", DTYPES)
    return device_of(device), DTYPES[dtype]


def device_of(name: str | torch.device) -> torch.device:
    """The device, or that of a name such as "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: no such name, or a device that this machine lacks.
    """
    try:
        if not isinstance(name, str | torch.device):
            raise TypeError("torch takes a number for that of a GPU")
        place = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {name!r} is none that torch knows; use 'cpu'") from error
    present = torch.accelerator.current_accelerator(check_available=True)
    count = 0 if present is None or present.type != place.type else torch.accelerator.device_count()
    if place.type != "cpu" and (place.index or 0) >= count:
        raise ValueError(f"device {name!r} is not available; use 'cpu'")
    return place


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
