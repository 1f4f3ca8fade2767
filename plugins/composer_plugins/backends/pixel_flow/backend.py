"""A pixel flow behind the loop: a network that predicts the clean image from text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from composer import Batch, Output
from composer.authoring import numbers_to_device, short_repr, to_device
from composer.predictions import SAMPLE, Prediction
from composer.schedules import FlowSchedule
from composer.solvers import Euler, Solver
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.forward import first_weight, forward

Ask = Callable[[Any, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(network, x (N, C, H, W), s (N,), text (N, L, D), mask (N, L), True where a token is not padding,
or None) -> clean images (N, C, H, W)."""
LIGHTER = "Load it with dtype='bfloat16' or offload=True, or at a smaller size"


@dataclass(frozen=True, eq=False, repr=False)
class PixelFlowBackend:
    """A model that predicts the clean image on x = (1 - s) x_0 + s k noise, k its schedule's width.

    Conditions are prompts; no condition is the empty prompt. The pipelines of such models step
    along the velocity (x - x_0) / max(s, ``least``), bounded where the noise ends. Here that is
    part of what is predicted,

        x_0' = x + min(1, s / least) (x_0 - x),

    so that Euler's method equals the pipeline's, and every other solver has the same bound. x_0' is
    affine in x_0, so guidance and orthogonal views commute with it. The loop keeps x in float32
    at least, whatever the network computes in.

    Args:
        network: predicts the clean image, in evaluation mode, on its device.
        ask: function that calls the network.
        embeddings: embeddings of the prompts, (1, L, D), without padding.
        schedule: a flow with the width of the noise in training.
        shape: (C, H, W) of the images.
        least: the smallest divisor of the velocity; PRX's is 0.05.
        device: device of the network.
        dtype: of x in the loop.
    """

    network: Any
    ask: Ask
    embeddings: Embeddings
    schedule: FlowSchedule
    shape: tuple[int, int, int]
    least: float
    device: torch.device = torch.device("cpu")
    prediction: Prediction = SAMPLE
    dtype: torch.dtype = torch.float32
    default_solver: Solver = Euler()
    _kept: dict[Any, tuple[Tensor, Tensor | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    __repr__ = short_repr

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"network": self.network}

    def encode(self, condition: Any) -> Hashable:
        return self.embeddings.encode(condition)

    def evaluate(self, batch: Batch) -> Output:
        self.embeddings.free_encoder()
        dtype = getattr(*self._weight).dtype
        x, noise = batch.x.to(dtype), [1 - t for t in batch.times]
        s = numbers_to_device(noise, x.device)
        text, mask = self._text(batch.conditions, dtype)
        ask = partial(self.ask, self.network, x, s, text, mask)
        x0 = forward(ask, x, self.dtype, LIGHTER)
        if min(noise) < self.least:
            share = (s / self.least).clamp(max=1).to(self.dtype)
            x0 = batch.x + share[:, None, None, None] * (x0 - batch.x)
        return Output(x0)

    @cached_property
    def _weight(self) -> tuple[nn.Module, str]:
        return first_weight(self.network)

    def _text(
        self, prompts: tuple[Hashable, ...], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """The padded texts of rows; cached, because the next step needs the same."""
        if (prompts, dtype) not in self._kept:
            self._kept.clear()
            texts = [self.embeddings[cast(str, prompt)][0].to(dtype) for prompt in prompts]
            self._kept[prompts, dtype] = padded(texts)
        return self._kept[prompts, dtype]


def padded(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Pad texts (L_i, D) to one tensor (N, L, D), with a mask (N, L) that is True where a token is
    not padding; None if none is."""
    lengths = [len(text) for text in texts]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.stack([*texts]), None
    places = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    together = torch.nn.utils.rnn.pad_sequence([*texts], batch_first=True)
    return together, to_device(places, together.device)
