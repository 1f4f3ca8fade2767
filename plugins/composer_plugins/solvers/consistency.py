"""Few-step sampling of consistency models: to the clean image, and back to noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from composer import Estimate, State, hookimpl
from composer.arguments import finite
from composer.predictions import mixed
from composer.schedules import renoise
from composer.solvers import Solver


@dataclass(frozen=True)
class Consistency(Solver):
    """Step to a noise level below the next one, and up to it by fresh noise.

    With the noise level l = sigma / (alpha + sigma) of the next time s, and s' the time of the
    noise level (1 - gamma) l,

        x_s' = alpha_s' x_0 + sigma_s' noise,
        x_s  = (alpha_s / alpha_s') x_s' + sqrt(sigma_s^2 - (alpha_s / alpha_s')^2 sigma_s'^2) z,

    z fresh. gamma = 1 is multistep consistency sampling, x_s = alpha_s x_0 + sigma_s z (Song et al.
    2023, "Consistency Models", arXiv 2303.01469, algorithm 1; LCM, Luo et al. 2023, arXiv
    2310.04378): for models whose x_0 is a sample, as those distilled for 1 to 8 steps. gamma = 0 is
    Euler, which is DDIM. Between them it is TCD's strategic stochastic sampling (Zheng et al. 2024,
    "Trajectory Consistency Distillation", arXiv 2402.19159, algorithm 4), whose paper has .3.

    A plain diffusion model estimates the mean of x_0, which in few steps leaves its images too
    smooth at every gamma.

    Args:
        gamma: in [0, 1], the share of the noise level that is fresh.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= finite(self.gamma, "Consistency: gamma") <= 1:
            raise ValueError(f"Consistency: gamma must be in [0, 1], got {self.gamma:g}.")

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor:
        schedule = estimate.schedule
        level = schedule.noise_level(state.t_next)
        cleaner = state.t_next
        if self.gamma > 0 and level > 0:
            cleaner = schedule.time_at((1 - self.gamma) * level)
        alpha, sigma = schedule.at(cleaner)
        x = mixed(alpha, estimate.x0, sigma, estimate.noise)
        if cleaner == state.t_next:
            return x
        return renoise(schedule, x, state.randn(), cleaner, state.t_next)
