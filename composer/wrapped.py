"""``composer.wrap``: make a backend from a network, without writing a class."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from composer.arguments import integer, label_of, switch
from composer.batch import Batch, Output, grouped
from composer.errors import said, shown
from composer.named import Device, DType, device_of, dtype_of, prediction_of, schedule_of, shape_of
from composer.placing import to_device
from composer.predictions import Prediction
from composer.protocols import Solver
from composer.requests import UNCONDITIONAL
from composer.schedules import Schedule
from composer.solvers import DDIM
from composer.words import short_repr

_Times = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class WrappedNetwork:
    """The backend that :func:`wrap` makes."""

    net: Callable[..., Any]
    shape: tuple[int, int, int]
    schedule: Schedule
    prediction: Prediction
    classes: int
    null: int | None
    time: _Times
    learns_variance: bool
    default_solver: Solver
    device: torch.device
    network_dtype: torch.dtype
    differentiable: bool = False

    __repr__ = short_repr

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"net": self.net} if isinstance(self.net, nn.Module) else {}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of x in the loop: float32, unless the network computes in float64."""
        return torch.promote_types(self.network_dtype, torch.float32)

    def encode(self, condition: Any) -> Hashable:
        if condition is UNCONDITIONAL:
            return UNCONDITIONAL  # type: ignore[no-any-return]
        if not self.classes:
            raise ValueError(
                f"the network has no classes and cannot make {shown(condition)}. Leave out the "
                "condition, or give the number of classes, as in wrap(..., classes=10)."
            )
        number = label_of(condition)
        if number not in range(self.classes) or number == self.null:
            other = f" other than {self.null}" if self.null in range(self.classes) else ""
            raise ValueError(
                f"a condition must be a label from 0 to {self.classes - 1}{other}, got "
                f"{shown(condition)}"
            )
        return number

    def evaluate(self, batch: Batch) -> Output:
        # One call; one more for rows without a label if the network takes None for them.
        groups = grouped([self.classes > 0 and self._label(c) is None for c in batch.conditions])
        return Output.gathered([self._answer(batch.take(rows)) for rows in groups], groups)

    def _label(self, condition: Hashable) -> Any:
        return self.null if condition is UNCONDITIONAL else condition

    def _answer(self, batch: Batch) -> Output:
        """The output of rows that all have a label, or none."""
        times = self.time(torch.tensor(batch.times, dtype=torch.float64))
        times = times.to(self.dtype) if times.dtype == torch.float64 else times
        arguments: list[Tensor | None] = [to_device(times, batch.x.device)]
        if self.classes:
            labels = [self._label(condition) for condition in batch.conditions]
            numbers = None if None in labels else torch.tensor(labels)
            arguments.append(None if numbers is None else to_device(numbers, batch.x.device))
        out = self._called(batch.x.to(self.network_dtype), *arguments).to(self.dtype)
        return Output(*out.split(self.shape[0], 1))

    def _called(self, x: Tensor, *arguments: Tensor | None) -> Tensor:
        try:
            out = self.net(x, *arguments)
        except Exception as error:
            if None not in arguments:
                raise
            raise ValueError(
                f"the network failed with the label None ({said(error)}). Give the label that was "
                f'trained as "no label", for example wrap(..., null={self.classes}).'
            ) from error
        out = getattr(out, "sample", out)  # the networks of diffusers return an object
        channels = self.shape[0] * (1 + self.learns_variance)
        expected = (len(x), channels, *self.shape[1:])
        if not isinstance(out, Tensor) or out.shape != expected:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"the network must return a tensor of shape {expected}, got {got}. If the second "
                "half of 2C channels is a learned variance, write wrap(..., learns_variance=True)."
            )
        return out


def wrap(
    net: Callable[..., Any],
    *,
    shape: tuple[int, int, int],
    schedule: Schedule,
    prediction: str | Prediction,
    classes: int | None = None,
    null: int | None = None,
    time: Literal["clock", "unit"] | _Times = "clock",
    learns_variance: bool = False,
    solver: Solver | None = None,
    device: Device | None = None,
    dtype: DType | None = None,
    differentiable: bool = False,
) -> WrappedNetwork:
    """Make a backend of a network ``net(x, t, label)``, or without classes ``net(x, t)``.

    x is (N, C, H, W), t (N,) and label (N,) int64. The network returns (N, C, H, W), or an object
    with that as ``sample``. Each step makes one call.

    Args:
        net: the network, in evaluation mode, or any function.
        shape: (C, H, W) of its images.
        schedule: the path that it was trained on, such as ``FlowSchedule()`` or
            ``DiscreteSchedule.linear(1000)``.
        prediction: the type of its output: "epsilon", "sample", "v", "flow", or a
            :class:`~composer.predictions.Prediction` of your own.
        classes: the number of labels; conditions are 0 to classes - 1. None for no labels.
        null: the label that was trained as "no label", often ``classes``. None for a network that
            takes the label None, which needs a call of its own.
        time: the network's t: "clock" for the schedule's times (999 to 0 for 1000 times, or from 0,
            noise, to 1 for a flow), "unit" for these mapped onto [0, 1], or a function of the
            clock's times (N,), such as ``lambda t: 1 - t`` or ``torch.Tensor.long``.
        learns_variance: whether the second half of 2C channels is a variance in [-1, 1].
        solver: the default solver; None for DDIM, which on a flow is Euler's method.
        device: the device of x; None for the device of the network's parameters.
        dtype: the dtype in which the network computes; None for that of its parameters.
        differentiable: whether gradients flow from its output to x, as DPS needs; ``check_backend``
            proves it.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value.
    """
    if not callable(net) or isinstance(net, type):
        raise TypeError(f"wrap: net must be a network or a function, got {shown(net)}.")
    if isinstance(net, nn.Module) and net.training:
        raise ValueError(
            "wrap: net must be in evaluation mode, got one in training mode. Call net.eval()."
        )
    parameters = net.parameters() if isinstance(net, nn.Module) else iter(())
    first = next(iter(parameters), torch.zeros(0, dtype=torch.float32))
    known = 0 if classes is None else integer(classes, "wrap: classes", least=1)
    return WrappedNetwork(
        net,
        shape_of(shape),
        schedule_of(schedule),
        prediction_of(prediction),
        known,
        None if null is None else integer(null, "wrap: null", least=0),
        _times(time, schedule),
        switch(learns_variance, "wrap: learns_variance"),
        DDIM() if solver is None else solver,
        first.device if device is None else device_of(device),
        first.dtype if dtype is None else dtype_of(dtype),
        switch(differentiable, "wrap: differentiable"),
    )


def _times(time: str | _Times, schedule: Schedule) -> _Times:
    named = {"clock": torch.Tensor.double, "unit": schedule.unit_time}
    if callable(time):
        return time
    if time not in named:
        raise ValueError(f"wrap: time must be 'clock', 'unit' or a function, got {shown(time)}.")
    return named[time]
