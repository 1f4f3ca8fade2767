"""A hash of a backend's weights, by which a picture names the model that made it."""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Weights:
    """The hash of a backend's weights, computed when a recipe is written.

    Until then it holds the backend. A copy or pickle of it holds the hash alone.
    """

    def __init__(self, backend: object = None, known: str | None = None) -> None:
        self._backend, self._known = backend, known

    def hash(self) -> str | None:
        """:func:`hash_of` the backend."""
        if self._backend is not None:
            self._known, self._backend = hash_of(self._backend), None
        return self._known

    def __reduce__(self) -> tuple[Any, ...]:
        return Weights, (None, self.hash())


def hash_of(backend: object) -> str | None:
    """sha256 of the names, dtypes and values of the networks that a backend declares.

    A backend declares them by an optional attribute ``networks``, {name: nn.Module}. None of one
    that does not. It is computed once, and again when a network has changed.
    """
    networks = networks_of(backend)
    if not networks:
        return None
    tensors = {
        f"{owner}.{name}": tensor
        for owner, network in networks.items()
        for name, tensor in _tensors(network)
    }
    versions = [_version(tensor) for tensor in tensors.values()]
    with contextlib.suppress(TypeError, KeyError):  # not hashable, or not known yet
        seen, before, found = _KNOWN[backend]
        if before == versions and all(
            ref() is tensor for ref, tensor in zip(seen, tensors.values(), strict=True)
        ):
            return found
    found = sha256_of(tensors)
    with contextlib.suppress(TypeError):
        _KNOWN[backend] = [weakref.ref(tensor) for tensor in tensors.values()], versions, found
    return found


def networks_of(backend: object) -> dict[str, nn.Module]:
    """The networks that a backend declares: its optional attribute ``networks``."""
    declared: Mapping[str, Any] = getattr(backend, "networks", None) or {}
    return {name: net for name, net in declared.items() if isinstance(net, nn.Module)}


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors and their names, whatever their order."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _tensors(network: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _version(tensor: Tensor) -> int:
    """How often a tensor was written into; 0 for one of inference mode, which does not count it."""
    return 0 if tensor.is_inference() else tensor._version


_KNOWN: weakref.WeakKeyDictionary[Any, tuple[list[weakref.ref[Tensor]], list[int], str]] = (
    weakref.WeakKeyDictionary()
)
"""The hashes computed so far. To read gigabytes again takes longer than to make a picture."""
