"""The straight path of flow matching."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from composer.arguments import finite, integer, positive
from composer.errors import shown
from composer.limits import MAX_STEPS
from composer.schedules.schedule import Schedule, checked_time, to_float64


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
        t = to_float64(t)
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f"FlowSchedule: times must be in [0, 1], got {t.tolist()}.")
        return t, self.noise_scale * (1 - t)

    def at(self, t: float) -> tuple[float, float]:
        t = checked_time(t, 0, 1)
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
