"""A corrector: Langevin steps at a fixed noise level, towards the density of the combined score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from composer import Estimate, Plugin, Stack, State, hookimpl
from composer.arguments import positive
from composer.authoring import check_walks, plan_walks, require_walks


@dataclass(frozen=True, eq=False)
class Langevin(Plugin):
    """After each step, walk ``steps`` times at the noise level reached.

    With e the noise estimate, so that -e / sigma is the score, each walk is

        x <- x - size * sigma * e + sqrt(2 size) * sigma * z,    z ~ N(0, I).

    A mean of scores is not the score of a diffused product, so a solver alone does not sample the
    product of the densities. Walking at each level does, up to the step's bias (a variance v
    becomes v / (1 - size sigma^2 / 2v), a factor of at most 1 / (1 - size / 2) where v >= sigma^2).
    Guidance narrows the density by up to its scale, so keep size * scale below about 1; walks
    diverge at 2. Each walk costs as many rows as a step.

    Song et al. 2021, "Score-Based Generative Modeling through SDEs", arXiv 2011.13456, algorithm 4;
    Du et al. 2023, "Reduce, Reuse, Recycle", arXiv 2302.11552.

    Args:
        steps: walks per noise level, 1 to 1000.
        size: length of a walk in units of sigma^2, in (0, 2).
        interval: noise levels (low, high) within [0, 1] at which to walk.
    """

    unique = "walk at each noise level"
    walks = True

    steps: int = 1
    size: float = 0.1
    interval: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        require_walks(self.steps, self.interval, "Langevin")
        if positive(self.size, "Langevin: size") >= 2:
            raise ValueError(
                f"Langevin: size must be below 2, got {self.size}. Larger walks diverge."
            )

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_walks(self, stack)

    @hookimpl(trylast=True)  # after other plugins have changed the plan
    def start(self, state: State) -> None:
        plan_walks(state, self.steps, self.interval)

    @hookimpl
    def step(self, state: State, estimate: Estimate) -> Tensor | None:
        """Walk where the plan repeats a time; leave other steps to the solver."""
        return self.walk(state, estimate) if state.t_next == state.t else None

    def walk(self, state: State, estimate: Estimate) -> Tensor:
        """The next image at the same noise level; costs as many rows as a step."""
        _, sigma = estimate.schedule.at(state.t)
        noise = math.sqrt(2 * self.size) * sigma * state.randn()
        return estimate.x - self.size * sigma * estimate.noise + noise
