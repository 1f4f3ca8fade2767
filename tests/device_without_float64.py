"""A stand-in for a device that has no float64, as Apple's MPS: its tensors lie on the CPU."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
"""What its tensors give as their device. Within DeviceWithoutFloat64 nothing is really there."""


class OnDevice(torch.Tensor):
    """A tensor of the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class DeviceWithoutFloat64(TorchFunctionMode):
    """Within it tensors may be sent to DEVICE, and a float64 tensor there raises TypeError.

    What comes of a tensor there is there, unless it is moved to the CPU.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = any(isinstance(leaf, OnDevice) for leaf in tree_leaves((args, kwargs)))
        if getattr(func, "__self__", None) is torch.Tensor.device:
            return DEVICE if there else torch.device("cpu")
        named = [leaf for leaf in tree_leaves((args[1:], kwargs)) if _names_a_device(leaf)]
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], torch.Tensor):
            there = isinstance(args[1], OnDevice)
        elif func is torch.Tensor.cpu or named:
            there = any(torch.device(name) == DEVICE for name in named)
        made = func(*tree_map(_on_the_cpu, args), **tree_map(_on_the_cpu, kwargs))
        return tree_map(_placed_there if there else _plain, made)


def _names_a_device(leaf):
    return isinstance(leaf, torch.device) or leaf in ("cpu", DEVICE.type)


def _on_the_cpu(leaf):
    if isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf == DEVICE.type):
        return torch.device("cpu")
    return leaf


def _placed_there(leaf):
    if isinstance(leaf, torch.dtype) and leaf == torch.float64:
        return leaf
    if isinstance(leaf, torch.Tensor):
        if leaf.dtype == torch.float64:
            raise TypeError("the device has no float64; make it on the CPU")
        return leaf.as_subclass(OnDevice)
    return leaf


def _plain(leaf):
    return leaf.as_subclass(torch.Tensor) if isinstance(leaf, OnDevice) else leaf
