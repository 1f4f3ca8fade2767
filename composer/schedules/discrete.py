"""Variance-preserving paths known at integer times, as DDPM's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from composer.arguments import choice, finite, integer
from composer.errors import shown
from composer.limits import MAX_SETTING
from composer.schedules.schedule import Schedule, checked_time, to_float64

Spacing = Literal["leading", "trailing", "linspace"]


class DiscreteSchedule(Schedule):
    """A variance-preserving schedule known at T integer times: alpha = sqrt(alphas_cumprod[t]).

    Time -1 is the clean image. Between integers the noise level is interpolated linearly.

    Ho et al. 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239.

    Args:
        alphas_cumprod: T decreasing numbers in [0, 1].
        spacing: which times a sampler of n steps visits, r = T / n, with diffusers' names:
            "leading" [0, r, 2r, ...], "trailing" [T-1, T-1-r, ...], "linspace" both ends.
        steps_offset: added to the times of "leading" spacing.
    """

    def __init__(
        self,
        alphas_cumprod: Sequence[float] | Tensor,
        spacing: Spacing = "trailing",
        steps_offset: int = 0,
    ) -> None:
        try:
            table = to_float64(alphas_cumprod)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(
                f"alphas_cumprod must be a list of T numbers, got {shown(alphas_cumprod)}."
            ) from None
        if table.ndim != 1 or len(table) < 1:
            raise ValueError(
                f"alphas_cumprod must be a list of T numbers, got the shape {tuple(table.shape)}."
            )
        if not bool(((table >= 0) & (table <= 1)).all() and (table.diff() <= 0).all()):
            raise ValueError("alphas_cumprod must decrease within [0, 1], from data to noise.")
        if bool((table[:-1] == 0).any()):
            raise ValueError(
                "alphas_cumprod must be above 0 before the last time, because a step needs a "
                "signal. Make every beta but the last less than 1."
            )
        integer(steps_offset, "steps_offset", least=0)
        choice(spacing, "spacing", _SPACINGS)
        self.alphas_cumprod = table
        self.spacing: Spacing = spacing
        self.steps_offset = steps_offset
        alphas, sigmas = table.sqrt(), (1 - table).sqrt()
        clean = torch.zeros(1, dtype=torch.float64)
        # For the times -1, 0, ..., T - 1, as Python floats, which every step reads often.
        self._levels = torch.cat([clean, sigmas / (alphas + sigmas)])
        self._amplitudes = [variance_preserving(level) for level in self._levels.tolist()]

    @classmethod
    def linear(
        cls,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        spacing: Spacing = "trailing",
    ) -> DiscreteSchedule:
        """alphas_cumprod = cumprod(1 - beta), beta linear from ``beta_start`` to ``beta_end``."""
        count = integer(num_train_timesteps, "num_train_timesteps", 1, MAX_SETTING)
        ends = finite(beta_start, "beta_start"), finite(beta_end, "beta_end")
        betas = torch.linspace(*ends, count, dtype=torch.float64)
        return cls((1 - betas).cumprod(0), spacing)

    def __len__(self) -> int:
        return len(self._amplitudes) - 1

    def __repr__(self) -> str:
        return f"DiscreteSchedule({len(self)} times, spacing={self.spacing!r})"

    def at(self, t: float) -> tuple[float, float]:
        place = checked_time(t, -1, len(self) - 1) + 1  # row 0 is the clean image, at time -1
        below = int(place)
        if place == below:
            return self._amplitudes[below]
        lower, upper = (s / (a + s) for a, s in self._amplitudes[below : below + 2])
        return variance_preserving(lower + (place - below) * (upper - lower))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = to_float64(t)
        if not bool(((t >= -1) & (t <= len(self) - 1)).all()):
            raise ValueError(f"times must be in [-1, {len(self) - 1}], got {t.tolist()}.")
        place = t + 1
        below = place.floor().long().clamp(max=len(self) - 1)
        level = torch.lerp(self._levels[below], self._levels[below + 1], place - below)
        length = torch.hypot(1 - level, level)
        return (1 - level) / length, level / length

    def times(self, num_steps: int) -> list[float]:
        if integer(num_steps, "num_steps", least=1) > len(self):
            raise ValueError(
                f"num_inference_steps must be at most {len(self)}, the number of the model's "
                f"training times, got {num_steps}."
            )
        times = _SPACINGS[self.spacing](self, num_steps)
        if times[0] >= len(self):
            raise ValueError(
                f"steps_offset={self.steps_offset} plans time {times[0]} of {len(self)}. Lower it."
            )
        return [*map(float, times), -1.0]

    def time_at(self, noise_level: float) -> float:
        return float(
            np.interp(
                finite(noise_level, "noise_level"), self._levels.numpy(), np.arange(-1, len(self))
            )
        )

    def training_times(self, places: Tensor) -> Tensor:
        return (places * len(self)).floor().clamp(max=len(self) - 1)

    def unit_time(self, t: Tensor) -> Tensor:
        return t / len(self)

    def _leading(self, n: int) -> list[int]:
        stride = len(self) // n
        return [i * stride + self.steps_offset for i in reversed(range(n))]

    def _trailing(self, n: int) -> list[int]:
        return [round(len(self) - i * len(self) / n) - 1 for i in range(n)]

    def _linspace(self, n: int) -> list[int]:
        return [round(v) for v in torch.linspace(len(self) - 1, 0, n, dtype=torch.float64).tolist()]


_SPACINGS = {
    "leading": DiscreteSchedule._leading,
    "trailing": DiscreteSchedule._trailing,
    "linspace": DiscreteSchedule._linspace,
}


def variance_preserving(level: float) -> tuple[float, float]:
    """The alpha and sigma at a noise level, with alpha^2 + sigma^2 = 1."""
    length = math.hypot(1 - level, level)
    return (1 - level) / length, level / length
