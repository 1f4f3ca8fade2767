"""A diffusers UNet2DModel behind the loop."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from composer import UNCONDITIONAL, Batch, Estimate, Output, Request, UnknownNameError, hookimpl
from composer.arguments import label_of
from composer.authoring import Clip, clipped, numbers_to_device, short_repr, to_device
from composer.errors import shown
from composer.predictions import Prediction
from composer.schedules import DiscreteSchedule
from composer.solvers import Solver
from composer_plugins.backends.forward import forward
from composer_plugins.backends.placement import place_of

LIGHTER = "Load it with dtype='float16', or on a device with more memory"


@dataclass(frozen=True, eq=False, repr=False)
class DiffusersBackend:
    """A pixel-space UNet2DModel, unconditional or conditioned on integer labels.

    The loop keeps x in float32 at least, whatever the network computes in.

    Args:
        unet: called as unet(x, times, class_labels=labels).
        schedule, prediction: the path and prediction type of its training.
        default_solver: the pipeline's own scheduler, as a solver.
        clip: function that the scheduler applies to every estimated clean image (B, C, H, W), or
            None. The backend applies it outermost, once per step, for every solver.
        learns_variance: whether the second half of 2C output channels is a variance in [-1, 1];
            otherwise the backend drops a second half.
        unconditional_label: the label trained as "no label", or None. Omit the condition to select
            that label; its number raises.
        label_names: names of the first labels; a name is a condition too. If the names are in lower
            case, capitals also match.
    """

    unet: Any
    schedule: DiscreteSchedule
    prediction: Prediction
    default_solver: Solver
    clip: Clip | None = None
    learns_variance: bool = False
    unconditional_label: int | None = None
    label_names: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32

    differentiable = True

    __repr__ = short_repr

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"unet": self.unet}

    @property
    def shape(self) -> tuple[int, int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def device(self) -> torch.device:
        return place_of(self.unet)[0]

    @property
    def num_labels(self) -> int | None:
        """The number of labels, "no label" included; None for an unconditional network."""
        count: int | None = self.unet.config.num_class_embeds
        return count

    def encode(self, condition: Any) -> Hashable:
        if self.num_labels is None:
            if condition is UNCONDITIONAL:
                return UNCONDITIONAL  # type: ignore[no-any-return]
            raise ValueError(
                f"a condition must be None for an unconditional model, got {condition!r}."
            )
        if condition is UNCONDITIONAL:
            if self.unconditional_label is None:
                raise ValueError(
                    f"every request needs a condition from 0 to {self.num_labels - 1}. If "
                    "one of them was trained as no label, load the model with unconditional_label="
                    f"{self.num_labels - 1}."
                )
            return UNCONDITIONAL  # type: ignore[no-any-return]
        number = label_of(condition)
        named = condition in self.label_names or number < 0
        if isinstance(condition, str) and self.label_names and named:
            # Most names are in lower case, and users may write capitals.
            name = condition if condition in self.label_names else condition.lower()
            if name not in self.label_names:
                raise UnknownNameError("label", name, self.label_names)
            return self.label_names.index(name)
        return self._label(number, condition, self.num_labels - 1)

    def _label(self, number: int, condition: Any, last: int) -> int:
        """A label by number. Raises for the number of "no label"."""
        if 0 <= number <= last and number != self.unconditional_label:
            return number
        if 0 <= number == self.unconditional_label:
            raise ValueError(f"label {number} means no label. Omit the condition instead.")
        known = last - 1 if last == self.unconditional_label else last
        raise ValueError(f"a condition must be a label from 0 to {known}, got {shown(condition)}.")

    def evaluate(self, batch: Batch) -> Output:
        device, dtype = place_of(self.unet)
        # An embedded time is rounded to a whole one, because schedulers of other paths use times in
        # between.
        times = numbers_to_device(batch.times, device)
        if self.unet.config.time_embedding_type == "learned":
            times = times.round().long().clamp(min=0)
        labels = None
        if self.num_labels is not None:
            free = self.unconditional_label
            numbers = [free if c is UNCONDITIONAL else c for c in batch.conditions]
            labels = to_device(torch.tensor(numbers), device)
        x = batch.x.to(dtype)
        out = forward(
            lambda: self.unet(x, times, class_labels=labels).sample, x, self.dtype, LIGHTER
        )
        channels = self.shape[0]
        return Output(out[:, :channels], out[:, channels:] if self.learns_variance else None)

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        """Clip x_0 by the scheduler's configuration; the noise follows from it."""
        return (yield from clipped(request, self.clip))
