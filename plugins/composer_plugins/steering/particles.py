"""Several candidates per seed, of which the best survive."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import finite, integer, sequence, within
from composer.authoring import Score, check_score, follow_several, require_score, scored, to_images
from composer.limits import MAX_PARTICLES


@dataclass(frozen=True, eq=False)
class Particles(Plugin):
    """Start several images per seed and drop those with the lowest scores of x_0 during the run.

    At noise level l_i the n_i images of each seed with the highest score(x_0) stay, with x_0 the
    clean image that the last estimate implies, decoded over a latent model. At the end, where
    n = 1, the image itself is scored. Image k is a function of seeds[k] alone: its first candidate
    is the image that the seed gives without this plugin, and the others have generators derived
    from the seed.

    This is the greedy limit of Feynman-Kac steering: Singhal et al. 2025, "A General Framework for
    Inference-time Scaling and Steering of Diffusion Models", arXiv 2501.06848.

    Args:
        score: (B, C, H, W) in [-1, 1] -> (B,), higher is better; each image scored alone.
        survivors: (noise level, images per seed), levels falling from 1 to 0 and the last number 1.
            ((1, 4), (0, 1)) chooses among four at the end; ((1, 8), (0.6, 2), (0, 1)) drops six of
            eight early, which saves their later steps.
    """

    follows_several = True
    unique = "follow several images a seed"
    score: Score
    survivors: Sequence[Sequence[float]] = ((1.0, 4), (0.0, 1))

    def __post_init__(self) -> None:
        require_score(self.score, "Particles")
        plan = sequence(self.survivors, "Particles: survivors")
        if not plan or any(not isinstance(e, Sequence) or len(e) != 2 for e in plan):
            raise ValueError(
                f"Particles: survivors must be (noise level, number) pairs, got {plan}."
            )
        levels = [finite(level, "Particles: survivors") for level, _ in plan]
        counts = [integer(count, "Particles: survivors", 1, MAX_PARTICLES) for _, count in plan]
        falling = all(a > b for a, b in pairwise(levels))
        if not falling or levels[0] != 1 or levels[-1] != 0 or counts[-1] != 1:
            raise ValueError(
                "Particles: survivors must have levels that fall from 1 to 0 and a last number of "
                f"1, as in ((1, 4), (0, 1)), got {plan}."
            )
        if counts != sorted(counts, reverse=True):
            raise ValueError(f"Particles: the numbers of survivors must not rise, got {counts}.")

    @hookimpl
    def check(self, stack: Stack) -> None:
        check_score(self.score, stack.backend, "Particles")

    @hookimpl(wrapper=True)  # around all others, so that they prepare one input per candidate
    def start(self, state: State) -> Generator[None, None, None]:
        follow_several(state, self._alive(1.0))
        yield

    @hookimpl(trylast=True)  # after other plugins have changed x
    def post_step(self, state: State) -> None:
        if state.estimate is not None and not state.finished:
            keep = self._alive(state.backend.schedule.noise_level(state.t))
            self._keep(state, keep, state.estimate.x0)

    @hookimpl(trylast=True)  # also when a run stops early
    def finish(self, state: State) -> None:
        self._keep(state, 1, state.x)

    def _keep(self, state: State, keep: int, x0: Tensor) -> None:
        """Keep the ``keep`` images of each seed whose ``x0`` has the highest score."""
        groups = len(state.seeds)
        count = len(state.x) // groups
        if keep >= count:
            return
        scores = scored(self.score, to_images(state.backend, x0), "Particles")
        best = scores.reshape(groups, count).argsort(1, descending=True)[:, :keep].sort(1).values
        chosen = best + count * torch.arange(groups, device=best.device)[:, None]
        state.select(chosen.flatten())

    def _alive(self, level: float) -> int:
        """The number of images per seed at a noise level."""
        return int([count for at, count in self.survivors if within(level, (0.0, at))][-1])
