"""What the loop asks of a model: a path, a prediction type, and one batched evaluation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from composer.predictions import Prediction
from composer.schedules import Schedule

if TYPE_CHECKING:
    from composer.requests import Request
    from composer.solvers import Solver


class Output(NamedTuple):
    """A network's output (B, C, H, W), learned variance split off where there is one."""

    prediction: Tensor
    variance: Tensor | None = None

    @staticmethod
    def cat(outputs: Sequence[Output]) -> Output:
        """Outputs of consecutive images as one."""
        variances = [o.variance for o in outputs if o.variance is not None]
        return Output(
            torch.cat([o.prediction for o in outputs]),
            torch.cat(variances) if variances else None,
        )


@runtime_checkable
class Backend(Protocol):
    """A model behind the loop.

    Attributes:
        schedule: its path and clock.
        prediction: what its output means.
        shape: (C, H, W) of its images.
        device, dtype: where and in what the loop keeps x.
        default_solver: the solver to use when none is named.
    """

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

    def encode(self, condition: Any) -> Hashable:
        """The condition as ``evaluate`` wants it, the same object for the same condition.

        Never called with None. Called again on what it returned, it returns that.

        Raises:
            ValueError: the backend cannot express the condition; the sentence says what it can.
            UnknownNameError: a name that the backend does not know; it says the nearest.
        """
        ...

    def evaluate(self, requests: Sequence[Request]) -> Sequence[Output]:
        """Answer distinct requests, conditions encoded, each about the same B images."""
        ...


def models_of(backend: Backend) -> tuple[str, ...]:
    """The names of the further models behind a backend: its optional attribute ``models``."""
    return tuple(getattr(backend, "models", ()))


def image_shape_of(backend: Backend) -> tuple[int, int, int]:
    """(C, H, W) of finished images: its optional attribute ``image_shape``, of a latent model whose
    ``finish`` decodes x; otherwise ``shape``."""
    shape: tuple[int, int, int] = getattr(backend, "image_shape", backend.shape)
    return shape


def checked_outputs(outputs: object, requests: Sequence[Request], who: str) -> list[Output]:
    """What ``evaluate`` returned, if it is one Output a request, each of its request's shape."""
    mend = f"{who} must return a list of one composer.Output(prediction, variance) a request"
    if not isinstance(outputs, list | tuple) or not all(isinstance(o, Output) for o in outputs):
        raise TypeError(f"{mend}, got {type(outputs).__name__}")
    if len(outputs) != len(requests):
        raise ValueError(f"{mend}, got {len(outputs)} for {len(requests)}")
    for output, request in zip(outputs, requests, strict=True):
        for name, part in output._asdict().items():
            if part is None and name == "variance":
                continue
            if not isinstance(part, Tensor) or not part.is_floating_point():
                raise TypeError(f"{who} returned a {name} that is no tensor of floating point")
            if part.shape != request.x.shape:
                raise ValueError(
                    f"{who} returned a {name} of shape {tuple(part.shape)} for x of "
                    f"{tuple(request.x.shape)}; split a learned variance off into Output.variance"
                )
    if len({o.variance is None for o in outputs}) > 1:
        raise ValueError(f"{who} returned a variance with some outputs only; with all or none")
    return list(outputs)
