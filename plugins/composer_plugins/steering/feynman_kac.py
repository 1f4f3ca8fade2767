"""Feynman-Kac steering: several candidates per seed, resampled by the growth of their scores."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import finite, integer
from composer.authoring import (
    Score,
    check_score,
    declared,
    follow_several,
    require_score,
    scored,
    take_log_weights,
    to_images,
)
from composer.limits import MAX_PARTICLES


@dataclass(frozen=True, eq=False)
class FeynmanKac(Plugin):
    """Sample about the model's density times exp(strength * score), with K candidates per seed.

    After each step a candidate's weight grows by the factor exp(strength * (r - r')), with r the
    score of the x_0 that its last estimate implies, decoded over a latent model, and r' the score
    one step before. So the factors multiply to exp(strength * score(x)) at the end, whatever the
    scores in between. When the effective number of candidates, (sum w)^2 / sum w^2, falls below
    half of K, they are resampled (systematically) and their weights start again at 1. The image
    returned is drawn by the last weights. Image k is a function of seeds[k] alone. K -> infinity
    samples the tilted density; few candidates reach only part of a strong tilt (of a tilt that
    moves a Gaussian by .75 standard deviations, four reach about two thirds). Copies of one
    candidate part sooner if the solver draws more noise: use DDPM(); with Euler they stay equal.

    The weights also grow by what other plugins add, such as FeynmanKacCorrector; without a score
    these alone decide.

    Singhal et al. 2025, "A General Framework for Inference-time Scaling and Steering of Diffusion
    Models", arXiv 2501.06848, with the difference potential; Wu et al. 2023, "Practical and
    Asymptotically Exact Conditional Sampling in Diffusion Models", arXiv 2306.17775.

    Args:
        score: (B, C, H, W) in [-1, 1] -> (B,), each image scored alone; None for no tilt.
        strength: strength of the tilt; 0 is the model itself.
        particles: K, candidates per seed, 1 to 10,000.
    """

    follows_several = True
    unique = "follow several images a seed"
    score: Score | None = None
    strength: float = 1.0
    particles: int = 4

    def __post_init__(self) -> None:
        if self.score is not None:
            require_score(self.score, "FeynmanKac")
        finite(self.strength, "FeynmanKac: strength")
        integer(self.particles, "FeynmanKac: particles", least=1, most=MAX_PARTICLES)

    @hookimpl
    def check(self, stack: Stack) -> None:
        if self.score is not None:
            check_score(self.score, stack.backend, "FeynmanKac")
        elif not any(declared(plugin, "weighs") for plugin in stack.plugins):
            raise ValueError(
                "FeynmanKac: score must be given, unless another plugin weighs the images, got "
                "None. Give a score, or add a FeynmanKacCorrector."
            )

    @hookimpl(wrapper=True)  # around all others, so that they prepare one input per candidate
    def start(self, state: State) -> Generator[None, None, None]:
        follow_several(state, self.particles)
        state.memory[self] = torch.zeros(2, len(state.seeds), self.particles, dtype=torch.float64)
        yield

    @hookimpl(trylast=True)  # after other plugins have changed x
    def post_step(self, state: State) -> None:
        if state.estimate is None or state.finished:
            return
        scores, weights = self._weighed(state, state.estimate.x0)
        low = _effective(weights) < self.particles / 2
        chosen = torch.arange(self.particles).repeat(len(weights), 1)
        for seed in low.nonzero().flatten().tolist():
            chosen[seed] = _draw(weights[seed], _uniform(state, seed), self.particles)
        if bool(low.any()):
            state.copy(_flat(chosen, self.particles))
        weights = weights.masked_fill(low[:, None], 0.0)
        state.memory[self] = torch.stack([scores.gather(1, chosen), weights])

    @hookimpl(trylast=True)  # also when a run stops early
    def finish(self, state: State) -> None:
        _, weights = self._weighed(state, state.x)
        drawn = [_draw(w, _uniform(state, seed), 1) for seed, w in enumerate(weights)]
        state.select(_flat(torch.stack(drawn), self.particles))

    def _weighed(self, state: State, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of ``x0`` and the log weights that follow, (seeds, particles) each."""
        last, weights = state.memory[self]
        scores = last
        if self.score is not None:
            images = to_images(state.backend, x0)
            scores = scored(self.score, images, "FeynmanKac").cpu().double().reshape(last.shape)
            weights = weights + self.strength * (scores - last)
        added = take_log_weights(state)
        if added is not None:
            weights = weights + added.cpu().double().reshape(last.shape)
        if not bool(torch.isfinite(weights).all()):
            raise ValueError(
                f"FeynmanKac: the weights overflow at strength={self.strength:g}. Lower it, or the "
                "powers of a corrector."
            )
        return scores, weights


def _effective(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 along the last dimension."""
    return torch.exp(2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1))


def _draw(log_weights: Tensor, place: float, count: int) -> Tensor:
    """Systematic resampling: ``count`` indices, the k-th at quantile (k + place) / count."""
    cumulative = log_weights.softmax(0).cumsum(0)
    quantiles = (torch.arange(count, dtype=torch.float64) + place) / count
    return torch.searchsorted(cumulative, quantiles, right=True).clamp(max=len(log_weights) - 1)


def _uniform(state: State, seed: int) -> float:
    """A number in [0, 1) from the generator of a seed's first candidate."""
    generator = state.generators[state.origin.index(seed)]
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _flat(chosen: Tensor, count: int) -> Tensor:
    """Indices within each seed's candidates -> rows of the batch."""
    return (chosen + count * torch.arange(len(chosen))[:, None]).flatten()
