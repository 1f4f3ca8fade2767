"""Figures of the experiments of a course on diffusion models, on MNIST; ``composer figures``.

A figure is a function of a :class:`Lab` that computes and returns its data as a :class:`Sheet`,
:class:`Curves`, a :class:`Film` or a :class:`Turning`, each of which draws itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from composer import UnknownNameError
from composer_lab.figures import (
    anagrams,
    denoiser,
    denoising,
    editing,
    hybrids,
    latents,
    noising,
    sampling,
    training,
)
from composer_lab.figures.curves import Curves
from composer_lab.figures.films import Film, Turning
from composer_lab.figures.lab import Effort, Lab, stand_ins
from composer_lab.figures.runs import Run
from composer_lab.figures.sheets import Row, Sheet

__all__ = [
    "FIGURES",
    "OF_RUNS",
    "Curves",
    "Effort",
    "Figure",
    "Film",
    "Lab",
    "Row",
    "Run",
    "Sheet",
    "Turning",
    "about",
    "chosen",
    "stand_ins",
]


class Figure(Protocol):
    """The data of a figure, which draws itself."""

    @property
    def suffix(self) -> str:
        """The suffix of its file."""
        ...

    def write(self, file: Path) -> None:
        """Write the file atomically."""
        ...


Make = Callable[[Lab], Figure]

FIGURES: Mapping[str, Make] = {
    "noising": noising.noising,
    "forward": noising.forward,
    "schedules": noising.schedules,
    "denoising": denoising.denoising,
    "denoising-steps": denoising.snapshots,
    "denoising-film": sampling.film,
    "denoiser-noise-levels": denoiser.out_of_distribution,
    "denoiser-pure-noise": denoiser.pure_noise,
    "loss": training.losses,
    "samples-flow": partial(sampling.classes, model="mnist"),
    "samples-ddpm": partial(sampling.classes, model="mnist-ddpm"),
    "steps": partial(sampling.steps, model="mnist"),
    "guidance-flow": partial(sampling.guidance, model="mnist"),
    "guidance-ddpm": partial(sampling.guidance, model="mnist-ddpm"),
    "sdedit": editing.sdedit,
    "sdedit-drawn": editing.sdedit_drawn,
    "sdedit-class": editing.sdedit_class,
    "inpainting": editing.inpainting,
    "anagrams-rotation": partial(anagrams.sheet, view=anagrams.ROTATION),
    "anagrams-flip": partial(anagrams.sheet, view=anagrams.FLIP),
    "anagrams-skew": partial(anagrams.sheet, view=anagrams.SKEW),
    "anagrams-negative": partial(anagrams.sheet, view=anagrams.NEGATIVE),
    "anagram-film": partial(anagrams.film, view=anagrams.ROTATION),
    "anagram-film-flip": partial(anagrams.film, view=anagrams.FLIP),
    "anagram-film-skew": partial(anagrams.film, view=anagrams.SKEW),
    "anagram-film-negative": partial(anagrams.film, view=anagrams.NEGATIVE),
    "hybrids": hybrids.sheet,
    "hybrid-film": hybrids.film,
    "latents": latents.beside_pixels,
}
"""Figures of the models that the package ships."""
OF_RUNS: Mapping[str, Mapping[str, Make]] = {
    "denoiser": {"denoiser-epochs": training.denoiser_epochs},
    "mnist": {"samples-epochs": training.samples_epochs},
}
"""Figures of the epochs of a training, by its kind."""


def chosen(names: Sequence[str], runs: Sequence[Run] = ()) -> dict[str, Make]:
    """The figures of these names, in the order of the tables; without names all that can be drawn.

    Raises:
        UnknownNameError: with the nearest names.
        ValueError: a figure needs a training of a kind that ``runs`` lacks.
    """
    drawable = dict(FIGURES)
    for run in runs:
        drawable |= OF_RUNS.get(run.kind or "", {})
    of_runs = {name: kind for kind, makes in OF_RUNS.items() for name in makes}
    for name in names:
        if name not in {*FIGURES, *of_runs}:
            raise UnknownNameError("figure", name, {*FIGURES, *of_runs})
        if name not in drawable:
            raise ValueError(
                f"{name} needs the epochs of a training. Name with --run a folder that `composer "
                f"train {of_runs[name]}` wrote, with a model/ or an epoch-001/ in it."
            )
    return {name: make for name, make in drawable.items() if not names or name in names}


def about(make: Make) -> str:
    """One line that describes a figure."""
    return (inspect.getdoc(getattr(make, "func", make)) or "").split("\n")[0]
