"""Perturbations: a worse version of a network, for the length of a call.

A request whose ``model`` is a perturbation is answered by the backend's own model while its
networks, ``backend.networks``, are perturbed. These rows are a call of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn


class Perturbation(Protocol):
    """A change of networks; hashable, and equal to equal ones."""

    def applied(self, networks: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """Perturb networks within a block, in the thread that enters it alone.

        Args:
            networks: those that the backend declares, by name.
        """
        ...

    def __hash__(self) -> int: ...


def perturbation_of(model: Any) -> Perturbation | None:
    """The perturbation that a request names as its model; None for a name, and for none."""
    return None if model is None or not hasattr(model, "applied") else model
