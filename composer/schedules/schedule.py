"""The base class of schedules, and the forward process between any two times."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from composer.arguments import finite, floating
from composer.errors import shown


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


def checked_time(t: float, first: int, last: int) -> float:
    """Return a time in [first, last] as a float."""
    if type(t) is not float:  # called a dozen times per step, with floats
        t = finite(t.item() if isinstance(t, Tensor) and t.ndim == 0 else t, "t")
    if not first <= t <= last:
        raise ValueError(f"times must be in [{first}, {last}], got {shown(t)}.")
    return t


def to_float64(numbers: float | Sequence[float] | Tensor) -> Tensor:
    """Numbers in float64 on the CPU, because some devices have no float64."""
    if isinstance(numbers, Tensor):
        return numbers.cpu().double()
    return torch.as_tensor(numbers, dtype=torch.float64)
