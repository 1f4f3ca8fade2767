"""One forward of a network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from composer_plugins.backends.memory import exceeded, out_of_memory


def first_weight(network: nn.Module) -> tuple[nn.Module, str]:
    """The module and name of a network's first weight, whose dtype is that of the network.

    The search takes longer than ``getattr(*first_weight)`` afterwards, and a module may get another
    weight.
    """
    return next(
        (module, name)
        for module in network.modules()
        for name, _ in module.named_parameters(recurse=False)
    )


def forward(
    call: Callable[[], Tensor],
    x: Tensor,
    dtype: torch.dtype,
    lighter: str = "Load it with dtype='bfloat16' or offload=True",
) -> Tensor:
    """The output of a network, a new contiguous tensor of ``dtype``.

    Where gradients are off, the network runs in inference mode, in which operations cost less. What
    it makes there and keeps, such as a weight that a hook replaces, has no gradient in later calls.

    Args:
        call: calls the network.
        x: its images (N, C, H, W).
        lighter: advice if one image exceeds the memory.

    Raises:
        torch.OutOfMemoryError: with the bound to lower, instead of the allocator's report.
    """
    try:
        # Not inference_mode(False): it would switch off that of a caller.
        with nullcontext() if torch.is_grad_enabled() else torch.inference_mode():
            out = call()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise exceeded(x, lighter) from error
    # A copy that is made outside of the mode may get a gradient from a plugin.
    return out.to(dtype, copy=True, memory_format=torch.contiguous_format)
