"""Noise schedules: the path from noise to data, and the times a sampler visits on it.

A schedule is two functions of time on the path

    x_t = alpha(t) * x_0 + sigma(t) * noise,    noise ~ N(0, I),  x_0 in [-1, 1].

Times are the model's training times: integers T-1 ... 0 for a discrete (DDPM) schedule, with -1 for
the clean image; reals from 0 (noise) to 1 (data) for a flow. Only this package knows the direction
of a clock; elsewhere the order is by the noise level sigma / (alpha + sigma), 1 for pure noise and
0 for data.
"""

from composer.schedules.discrete import DiscreteSchedule, Spacing
from composer.schedules.flow import FlowSchedule
from composer.schedules.schedule import Schedule, ancestral_variance, renoise

__all__ = [
    "DiscreteSchedule",
    "FlowSchedule",
    "Schedule",
    "Spacing",
    "ancestral_variance",
    "renoise",
]
