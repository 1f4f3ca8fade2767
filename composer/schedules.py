"""Noise schedules: the path from noise to data, and the times a sampler visits on it.

A schedule is two functions of time on the path

    x_t = alpha(t) * x_0 + sigma(t) * noise,    noise ~ N(0, I),  x_0 in [-1, 1].

Times are the model's training times: integers T-1 ... 0 for a discrete (DDPM) schedule, with -1 for
the clean image; reals from 0 (noise) to 1 (data) for a flow. Only this file knows the direction of
a clock; elsewhere the order is by the noise level sigma / (alpha + sigma), 1 for pure noise and 0
for data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from composer.arguments import choice, finite, floating, integer, positive
from composer.errors import shown
from composer.limits import MAX_SETTING, MAX_STEPS

Spacing = Literal["leading", "trailing", "linspace"]


class Schedule(ABC):
    """A path alpha(t), sigma(t) and the clock t that runs along it.

    Attributes:
        noise_scale: how wide the noise is that a run begins with, about sigma at the noisy end.
    """

    noise_scale: float = 1.0

    @abstractmethod
    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise amplitudes of the shape of ``t``, in float64 on the CPU."""

    @abstractmethod
    def times(self, num_steps: int) -> list[float]:
        """The ``num_steps + 1`` times of a sampler, from pure noise to the clean image."""

    @abstractmethod
    def time_at(self, noise_level: float) -> float:
        """The time whose noise level sigma / (alpha + sigma) is the one given."""

    @abstractmethod
    def training_times(self, places: Tensor) -> Tensor:
        """Times at fractions ``places`` (B,) in [0, 1] along the clock."""

    @abstractmethod
    def unit_time(self, t: Tensor) -> Tensor:
        """Times mapped onto [0, 1], for small networks."""

    def at(self, t: float) -> tuple[float, float]:
        """alpha(t) and sigma(t) of one time as Python floats, which is fast."""
        alpha, sigma = self.alpha_sigma(torch.tensor(t, dtype=torch.float64))
        return float(alpha), float(sigma)

    def noise_level(self, t: float) -> float:
        """sigma / (alpha + sigma): 1 is pure noise, 0 is data, whatever the schedule."""
        alpha, sigma = self.at(t)
        return sigma / (alpha + sigma)

    def goes_back(self, t: float, s: float) -> bool:
        """Whether going from t to s is a jump back to noise."""
        return self.noise_level(s) > self.noise_level(t)

    def add_noise(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """The forward process: x_t = alpha(t) x_0 + sigma(t) noise.

        Args:
            x0, noise: (B, C, H, W), or (1, C, H, W) for all; x0 in [-1, 1].
            t: one time, or one per image (B,).
        """
        floating(x0, "add_noise: x0")
        floating(noise, "add_noise: noise")
        if x0.ndim == 0 or x0.shape[1:] != noise.shape[1:]:
            raise ValueError(
                "add_noise: x0 and noise must have the same (C, H, W), got "
                f"{tuple(x0.shape)} and {tuple(noise.shape)}."
            )
        each = len(t) if isinstance(t, Tensor) and t.ndim else 1
        if len({1, len(x0), len(noise), each}) > 2:
            raise ValueError(
                "add_noise: x0, noise and t must have length 1, or one per image, got "
                f"{len(x0)}, {len(noise)} and {each}."
            )
        if not isinstance(t, Tensor):
            alpha, sigma = self.at(t)
            return alpha * x0 + sigma * noise
        shape = (-1, *[1] * (x0.ndim - 1))
        alphas, sigmas = (v.to(x0.dtype).to(x0.device).reshape(shape) for v in self.alpha_sigma(t))
        return alphas * x0 + sigmas * noise


@dataclass(frozen=True, kw_only=True)
class FlowSchedule(Schedule):
    """The straight path of flow matching: alpha = t, sigma = k (1 - t), t from 0 (noise) to 1.

    Lipman et al. 2023, "Flow Matching for Generative Modeling", arXiv 2210.02747;
    Liu et al. 2023, "Flow Straight and Fast", arXiv 2209.03003; the shift is that of Esser et al.
    2024, "Scaling Rectified Flow Transformers", arXiv 2403.03206, section 5.3.2.

    Args:
        noise_scale: k, above 0; pixel flows at 1024 pixels are trained with 2 or 8.
        shift: shifts the visited times towards noise: with s = 1 - t, s becomes
            shift s / (1 + (shift - 1) s). 1 keeps them even.
        last: s before the last step and the shift, in (0, 1); steps are even from 1 to it. None for
            1 / n, where the step to the image is as long as the others.
    """

    noise_scale: float = 1.0
    shift: float = 1.0
    last: float | None = None

    def __post_init__(self) -> None:
        positive(self.noise_scale, "FlowSchedule: noise_scale")
        positive(self.shift, "FlowSchedule: shift")
        if self.last is not None and not 0 < finite(self.last, "FlowSchedule: last") < 1:
            raise ValueError(f"FlowSchedule: last must be in (0, 1), got {shown(self.last)}.")

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = _float64(t)
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f"FlowSchedule: times must be in [0, 1], got {t.tolist()}.")
        return t, self.noise_scale * (1 - t)

    def at(self, t: float) -> tuple[float, float]:
        t = _checked_time(t, 0, 1)
        return t, self.noise_scale * (1 - t)

    def times(self, num_steps: int) -> list[float]:
        n = integer(num_steps, "num_steps", 1, MAX_STEPS)
        if self.last is None or n == 1:
            even = [i / n for i in range(n + 1)]
        else:
            even = [i * (1 - self.last) / (n - 1) for i in range(n)] + [1.0]
        return even if self.shift == 1 else [t / (t + self.shift * (1 - t)) for t in even]

    def time_at(self, noise_level: float) -> float:
        level = finite(noise_level, "noise_level")
        if self.noise_scale == 1:
            return 1.0 - level
        clean = self.noise_scale * (1 - level)
        return clean / (clean + level)

    def training_times(self, places: Tensor) -> Tensor:
        return places

    def unit_time(self, t: Tensor) -> Tensor:
        return t


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
            table = _float64(alphas_cumprod)
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
        self._amplitudes = [_variance_preserving(level) for level in self._levels.tolist()]

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
        place = _checked_time(t, -1, len(self) - 1) + 1  # row 0 is the clean image, at time -1
        below = int(place)
        if place == below:
            return self._amplitudes[below]
        lower, upper = (s / (a + s) for a, s in self._amplitudes[below : below + 2])
        return _variance_preserving(lower + (place - below) * (upper - lower))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = _float64(t)
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


def _checked_time(t: float, first: int, last: int) -> float:
    """Return a time in [first, last] as a float."""
    if type(t) is not float:  # called a dozen times per step, with floats
        t = finite(t.item() if isinstance(t, Tensor) and t.ndim == 0 else t, "t")
    if not first <= t <= last:
        raise ValueError(f"times must be in [{first}, {last}], got {shown(t)}.")
    return t


def _variance_preserving(level: float) -> tuple[float, float]:
    """The alpha and sigma at a noise level, with alpha^2 + sigma^2 = 1."""
    length = math.hypot(1 - level, level)
    return (1 - level) / length, level / length


def _float64(numbers: float | Sequence[float] | Tensor) -> Tensor:
    """Numbers in float64 on the CPU, because some devices have no float64."""
    if isinstance(numbers, Tensor):
        return numbers.cpu().double()
    return torch.as_tensor(numbers, dtype=torch.float64)


def ancestral_variance(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float) -> float:
    """sigma_{t|s}^2: variance of the forward transition from the cleaner s to the noisier t.

    x_t = (alpha_t / alpha_s) x_s + sigma_{t|s} noise, so
    sigma_{t|s}^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2; for DDPM this is beta_t.
    """
    ratio = alpha_t / alpha_s
    return max(sigma_t**2 - (ratio * sigma_s) ** 2, 0.0)


def renoise(schedule: Schedule, x: Tensor, noise: Tensor, t: float, s: float) -> Tensor:
    """RePaint's jump: carry x from the cleaner time t back to the noisier s by the forward process.

    x_s = (alpha_s / alpha_t) x_t + sqrt(sigma_s^2 - (alpha_s / alpha_t)^2 sigma_t^2) noise.
    Lugmayr et al. 2022, "RePaint", arXiv 2201.09865.
    """
    alpha_t, sigma_t = schedule.at(t)
    alpha_s, sigma_s = schedule.at(s)
    spread = math.sqrt(ancestral_variance(alpha_s, sigma_s, alpha_t, sigma_t))
    return (alpha_s / alpha_t) * x + spread * noise
