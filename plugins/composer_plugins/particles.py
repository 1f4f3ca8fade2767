"""Several candidates a seed, of which the best survive."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from composer import Estimate, Sampler, State, hookimpl
from composer.arguments import finite, integer, sequence
from composer.state import draw

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Particles:
    """Start several images a seed and drop the worst on the way, by a score of x_0.

    At noise level l_i the n_i images of each seed with the highest score(x_0) live on, x_0 being
    the clean image that the last estimate implies; at the end, with n = 1, the image itself is
    scored. Image k is still a function of seeds[k] alone: its first candidate is the image that
    the seed has without this plugin, the others have generators derived from the seed.

    This is the greedy limit of Feynman-Kac steering: Singhal et al. 2025, "A General Framework for
    Inference-time Scaling and Steering of Diffusion Models", arXiv 2501.06848.

    Args:
        score: (B, C, H, W) in [-1, 1] -> (B,), higher is better; images scored alone.
        survivors: (noise level, images a seed), levels falling from 1 to 0 and the last number 1.
            ((1, 4), (0, 1)) chooses among four at the end; ((1, 8), (0.6, 2), (0, 1)) drops six
            of eight early, when they have cost little.
    """

    score: Score
    survivors: Sequence[Sequence[float]] = ((1.0, 4), (0.0, 1))

    def __post_init__(self) -> None:
        if not callable(self.score) or isinstance(self.score, type):
            raise TypeError(f"Particles: score must be a function of images, got {self.score!r}")
        plan = sequence(self.survivors, "Particles: survivors")
        if not plan or any(not isinstance(e, Sequence) or len(e) != 2 for e in plan):
            raise ValueError(
                f"Particles: survivors must be (noise level, number) pairs, got {plan}"
            )
        levels = [finite(level, "Particles: survivors") for level, _ in plan]
        counts = [integer(count, "Particles: survivors", least=1) for _, count in plan]
        falling = all(a > b for a, b in pairwise(levels))
        if not falling or levels[0] != 1 or levels[-1] != 0 or counts[-1] != 1:
            raise ValueError(
                "Particles: the levels of survivors must fall from 1 to 0 and the last number be "
                f"1, as in ((1, 4), (0, 1)); got {plan}"
            )
        if counts != sorted(counts, reverse=True):
            raise ValueError(f"Particles: the numbers of survivors must not rise, got {counts}")

    @hookimpl
    def check(self, sampler: Sampler) -> None:
        if sum(isinstance(plugin, Particles) for plugin in sampler.plugins) > 1:
            raise ValueError("two Particles in one stack; give one of them all the survivors")
        grey = torch.zeros(1, *sampler.backend.shape, dtype=sampler.backend.dtype)
        try:
            self._scored(grey.to(sampler.backend.device))
        except Exception as error:  # a function of somebody's: whatever it raises is the reason
            raise ValueError(
                f"Particles: score failed on images of {sampler.backend.shape}: {error}"
            ) from error

    @hookimpl(wrapper=True)  # around all others, which then lay things out for each candidate
    def start(self, state: State) -> Generator[None, None, None]:
        count, own = self._alive(1.0), state.seeds
        state.memory[self] = own
        derived = [[_derived(seed, k) for k in range(1, count)] for seed in own]
        if count > 1:
            further = draw(tuple(g for group in derived for g in group), state.backend)
            further = further.reshape(len(own), count - 1, *state.x.shape[1:])
            state.x = torch.cat([state.x[:, None], further], 1).flatten(0, 1)
        state.seeds = tuple(seed for seed in own for _ in range(count))
        state.generators = tuple(
            generator
            for first, group in zip(state.generators, derived, strict=True)
            for generator in (first, *group)
        )
        yield
        if count > 1 and (holder := _holding_a_batch(state)):
            raise ValueError(
                f"Particles: {holder} holds one image a candidate, and candidates are dropped on "
                "the way; give it one image for all"
            )

    @hookimpl(trylast=True)  # on the image that other plugins leave
    def post_step(self, state: State) -> None:
        groups = len(state.memory[self])
        count = len(state.seeds) // groups
        # A run that is stopped early ends with one image a seed too.
        level = 0.0 if state.finished else state.backend.schedule.noise_level(state.t)
        keep = self._alive(level)
        if keep >= count:
            return
        x0 = state.x if state.finished or state.estimate is None else state.estimate.x0
        scores = self._scored(x0.clamp(-1, 1))
        best = scores.reshape(groups, count).argsort(1, descending=True)[:, :keep].sort(1).values
        chosen = best + count * torch.arange(groups, device=best.device)[:, None]
        _select(state, chosen.flatten())

    def _scored(self, x: Tensor) -> Tensor:
        scores = self.score(x)
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (len(x),):
            what = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"Particles: score returned {what}; it must return a tensor of one number an "
                f"image, ({len(x)},)"
            )
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(f"Particles: score returned NaN or Inf: {scores.tolist()}")
        return scores

    def _alive(self, level: float) -> int:
        """How many images a seed has at a noise level."""
        return int([count for at, count in self.survivors if level <= at][-1])


def _holding_a_batch(state: State) -> str | None:
    """The plugin, if any, that keeps a tensor of one image a candidate for the run."""
    for owner, kept in state.memory.items():
        parts = kept if isinstance(kept, tuple) else (kept,)
        if any(isinstance(p, Tensor) and p.ndim == 4 and len(p) > 1 for p in parts):
            return type(owner).__name__
    return None


def _select(state: State, rows: Tensor) -> None:
    kept = rows.tolist()
    state.x = state.x[rows]
    state.seeds = tuple(state.seeds[i] for i in kept)
    state.generators = tuple(state.generators[i] for i in kept)
    if state.estimate is not None:
        state.estimate = _rows(state.estimate, rows)


def _rows(estimate: Estimate, rows: Tensor) -> Estimate:
    variance = None if estimate.variance is None else estimate.variance[rows]
    return replace(
        estimate, prediction=estimate.prediction[rows], variance=variance, x=estimate.x[rows]
    )


def _derived(seed: int, particle: int) -> torch.Generator:
    mixed = np.random.SeedSequence([seed, particle]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))
