"""The inputs of the figures: models, a few real digits, trainings, and the effort to spend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from composer import Backend, Sampler, load_backend
from composer_lab.figures.runs import Run
from composer_lab.training.denoiser import load_denoiser
from composer_lab.training.snapshots import plan
from composer_plugins.backends.mnist.data import sample_digits

MAX_ROWS = 256

MODELS: Mapping[str, Callable[[], Backend]] = {
    name: functools.cache(functools.partial(load_backend, name))
    for name in ("mnist", "mnist-ddpm", "mnist-latent")
}
NAMES: Mapping[str, str] = {
    "mnist": "flow",
    "mnist-ddpm": "DDPM",
    "mnist-latent": "flow of latents",
    "denoiser": "σ = 0.5",
    "pure noise": "noise alone",
}
"""Names in titles."""
DENOISERS: Mapping[str, Callable[[], nn.Module]] = {
    "denoiser": functools.cache(load_denoiser),
    "pure noise": functools.cache(functools.partial(load_denoiser, pure_noise=True)),
}


@dataclass(frozen=True)
class Effort:
    """The amount of work per figure.

    Args:
        steps: steps from noise to image.
        columns: images in a row, where their number is free.
        candidates: anagrams and hybrids per seed, of which the best is drawn.
        anagram_steps: steps per candidate.
    """

    steps: int = 20
    columns: int = 6
    candidates: int = 5
    anagram_steps: int = 8

    def start(self, share: float) -> int:
        """The index in the plan at a share of the way from noise to image, with at least one step
        left."""
        return min(round(share * self.steps), self.steps - 1)


@dataclass(frozen=True, eq=False)
class Lab:
    """The inputs of a figure.

    Args:
        seed: seed of the noise; image k of a row has seed + k.
        runs: folders that ``composer train`` wrote, for the figures of trainings.
        models, denoisers: {name: function that loads it}, called when a figure first needs it. A
            denoiser maps noisy images (B, 1, 28, 28) to its estimate of the clean ones.
        names: their names in titles.
    """

    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    runs: Sequence[Run] = ()
    models: Mapping[str, Callable[[], Backend]] = field(default_factory=lambda: MODELS)
    denoisers: Mapping[str, Callable[[], nn.Module]] = field(default_factory=lambda: DENOISERS)
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)

    @classmethod
    def of(cls, runs: Sequence[Run], seed: int = 0) -> Lab:
        """A lab in which trainings replace the shipped networks of their kind: :func:`stand_ins`.

        Args:
            runs, seed: as for the lab.
        """
        lab = cls(seed=seed, runs=runs)
        for place, run in stand_ins(runs).items():
            folder, name = str(run.model), f"{run.kept(NAMES[place])}, {run.name}"
            if place in MODELS:
                lab = lab.with_model(place, functools.partial(load_backend, place, weights=folder))
            else:
                load = functools.cache(functools.partial(load_denoiser, folder))
                lab = replace(lab, denoisers={**lab.denoisers, place: load})
            lab = replace(lab, names={**lab.names, place: name})
        return lab

    def with_model(self, name: str, load: Callable[[], Backend]) -> Lab:
        """This lab with one more model, which is loaded once."""
        return replace(self, models={**self.models, name: functools.cache(load)})

    def digits(self, kinds: Iterable[int], which: int = 0) -> Tensor:
        """Test digits (N, 1, 28, 28), one of each kind: the first in the package, or number
        ``which``."""
        images, labels = sample_digits()
        return torch.cat([images[labels == kind][which : which + 1] for kind in kinds])

    def seeds(self, count: int | None = None) -> range:
        """The seeds of a row of images; :attr:`Effort.columns` of them by default."""
        return range(self.seed, self.seed + (count or self.effort.columns))

    def noise(self, count: int = 1) -> Tensor:
        """(count, 1, 28, 28)."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(count, 1, 28, 28, generator=generator)

    def sampler(
        self, model: str, plugins: Iterable[object] = (), steps: int | None = None
    ) -> Sampler:
        """A sampler with :attr:`effort`'s steps and a memory bound."""
        count = self.effort.steps if steps is None else steps
        return Sampler(self.models[model](), plugins, None, count, MAX_ROWS)

    def sample(
        self, model: str, plugins: Iterable[object], condition: Any, seeds: Iterable[int]
    ) -> Tensor:
        """Images (B, 1, 28, 28), one per seed."""
        backend = self.models[model]()
        solver, steps = plan(backend, self.effort.steps)
        return Sampler(backend, plugins, solver, steps, MAX_ROWS).sample(condition, seeds).x


def stand_ins(runs: Sequence[Run]) -> dict[str, Run]:
    """{name in MODELS or DENOISERS: the last training that can replace it}.

    A model that was trained without classes replaces none, because figures need conditions.
    """
    return {run.place: run for run in runs if run.place is not None}
