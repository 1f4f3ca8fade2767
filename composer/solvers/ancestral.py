"""One-evaluation solvers: Euler, DDIM and DDPM's ancestral sampling.

All three mix the estimated clean image and noise again, x_s = alpha_s x_0 + sigma_s noise. They
differ in the share of noise that is fresh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from composer.arguments import choice, finite
from composer.markers import hookimpl
from composer.predictions import mixed
from composer.protocols import Solver, State
from composer.requests import Estimate
from composer.schedules import ancestral_variance


@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method for the probability-flow ODE, order 1: x_s = alpha_s x_0 + sigma_s noise.

    On a flow path this is x + (s - t) v; in the variables x / alpha, sigma / alpha it is the
    Euler step of Karras et al. 2022 (arXiv 2206.00364); on a DDPM schedule it is DDIM. The noise
    (x - alpha_t x_0) / sigma_t is not computed by itself, which saves passes over the image.
    """

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        alpha_t, sigma_t = estimate.schedule.at(estimate.t)
        alpha_s, sigma_s = estimate.schedule.at(state.t_next)
        kept = sigma_s / sigma_t
        return mixed(alpha_s - kept * alpha_t, estimate.x0, kept, estimate.x)


@dataclass(frozen=True)
class DDIM(Solver):
    """Song et al. 2021, "Denoising Diffusion Implicit Models", arXiv 2010.02502, equation 12.

    Args:
        eta: 0 is deterministic, 1 has the variance of DDPM's ancestral sampling.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= finite(self.eta, "DDIM: eta") <= 1:
            raise ValueError(f"DDIM: eta must be in [0, 1], got {self.eta}.")

    @property
    def ancestral(self) -> bool:
        return self.eta == 1

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        alpha, sigma = estimate.schedule.at(state.t_next)
        fresh = self.eta * math.sqrt(posterior_variance(estimate, state.t_next))
        kept = math.sqrt(max(sigma**2 - fresh**2, 0.0))
        x = mixed(alpha, estimate.x0, kept, estimate.noise)
        return x.add_(state.randn(), alpha=fresh) if fresh > 0 else x


@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral sampling over strided times: the exact posterior q(x_s | x_t, x_0).

    With r = alpha_t / alpha_s and beta = sigma_t^2 - r^2 sigma_s^2 (DDPM's beta_t),

        x_s = (alpha_s beta x_0 + r sigma_s^2 x_t) / sigma_t^2 + spread * noise',

    spread^2 = beta sigma_s^2 / sigma_t^2 ("fixed_small") or beta ("fixed_large"). A learned
    variance v in [-1, 1] interpolates between the two on a log scale, at (v + 1) / 2.

    Ho et al. 2020, arXiv 2006.11239, equation 7 and section 3.2; Nichol & Dhariwal 2021,
    arXiv 2102.09672, equation 15.

    Args:
        variance: "fixed_small" or "fixed_large", for models without a learned variance. The large
            one suits as many steps as in training; with few steps it leaves noise in the image.
    """

    ancestral = True

    variance: Literal["fixed_small", "fixed_large"] = "fixed_small"

    def __post_init__(self) -> None:
        choice(self.variance, "DDPM: variance", ("fixed_small", "fixed_large"))

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        alpha_t, sigma_t = estimate.schedule.at(estimate.t)
        alpha_s, sigma_s = estimate.schedule.at(state.t_next)
        beta = ancestral_variance(alpha_t, sigma_t, alpha_s, sigma_s)
        of_x0 = alpha_s * beta / sigma_t**2
        of_x = (alpha_t / alpha_s) * sigma_s**2 / sigma_t**2
        mean = mixed(of_x0, estimate.x0, of_x, estimate.x)
        if sigma_s == 0:
            return mean
        smallest = max(posterior_variance(estimate, state.t_next), 1e-20)
        fixed = beta if self.variance == "fixed_large" else smallest
        if estimate.variance is None:
            return mean.add_(state.randn(), alpha=math.sqrt(fixed))
        return mean.addcmul_(_learned_spread(estimate.variance, smallest, beta), state.randn())


def posterior_variance(estimate: Estimate, s: float) -> float:
    """Variance of q(x_s | x_t, x_0): beta sigma_s^2 / sigma_t^2."""
    alpha_t, sigma_t = estimate.schedule.at(estimate.t)
    alpha_s, sigma_s = estimate.schedule.at(s)
    return ancestral_variance(alpha_t, sigma_t, alpha_s, sigma_s) * sigma_s**2 / sigma_t**2


def _learned_spread(learned: Tensor, smallest: float, largest: float) -> Tensor:
    """Standard deviation of the noise to add, interpolated between two variances on a log scale."""
    low, high = 0.5 * math.log(smallest), 0.5 * math.log(largest)
    return torch.exp((high - low) / 2 * learned + (high + low) / 2)
