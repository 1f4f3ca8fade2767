"""The base of backends around another backend."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch

from composer.predictions import Prediction
from composer.protocols import Backend
from composer.schedules import Schedule
from composer.solvers import Solver
from composer.words import short_repr

_OWN = {"inner", "spread", "loaded_as"}
"""What is never passed on: who computes a batch, and how ``load_backend`` made the backend."""


class BackendWrapper:
    """A backend around ``inner``: what a subclass does not define is inner's.

    So it has those hooks and optional attributes (docs/write-a-backend.md) that inner has, except
    ``spread`` and ``loaded_as``. A subclass, usually a frozen dataclass, has ``inner`` and
    ``evaluate``.
    """

    __repr__ = short_repr

    if TYPE_CHECKING:

        @property
        def inner(self) -> Backend: ...
        @property
        def schedule(self) -> Schedule: ...
        @property
        def prediction(self) -> Prediction: ...
        @property
        def shape(self) -> tuple[int, int, int]: ...
        @property
        def device(self) -> torch.device: ...
        @property
        def dtype(self) -> torch.dtype: ...
        @property
        def default_solver(self) -> Solver: ...
        def encode(self, condition: Any) -> Hashable: ...

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name.startswith("__"):  # also of a copy that has no inner yet
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.inner, name)
