"""A picture of samples, which training writes beside each model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from composer import Backend, Sampler
from composer.contact_sheet import contact_sheet
from composer.schedules import DiscreteSchedule
from composer.solvers import DDPM, Solver
from composer_lab.training.denoiser import load_denoiser
from composer_plugins.backends.mnist.backend import load_mnist_flow, read_unet
from composer_plugins.backends.mnist.data import sample_digits
from composer_plugins.guidance.cfg import CFG

if TYPE_CHECKING:  # imported when drawing
    from PIL import Image

SCALE, STEPS = 2.0, 20
FEW = 1, 2, 4
KEPT = 0.1
"""Largest alpha at the end of a path that counts as noise."""


def draw_mnist(folder: Path) -> Image.Image:
    """Draw samples of a folder that ``composer train mnist`` wrote."""
    # The folder states the path and the prediction type.
    return draw_samples(load_mnist_flow(str(folder)), read_unet(folder).num_classes)


def draw_samples(backend: Backend, num_classes: int, columns: int = 6) -> Image.Image:
    """Draw samples of a model: one row per class, or four rows without classes.

    Each column is one seed, the same for every class.
    """
    solver, steps = plan(backend, STEPS)
    if num_classes:
        guided = Sampler(backend, [CFG(SCALE)], solver, steps)
        rows = {str(k): guided.sample(k, range(columns)).x for k in range(num_classes)}
        return contact_sheet(rows, columns=",".join(f"seed {seed}" for seed in range(columns)))
    plain = Sampler(backend, (), solver, steps)
    seeds = [range(first, first + 10) for first in range(0, 40, 10)]
    return contact_sheet({f"seeds {s[0]} to {s[-1]}": plain.sample(seeds=s).x for s in seeds})


def draw_few_steps(folder: Path) -> Image.Image:
    """Draw samples of a few-step model: one row per number of steps, one column per class."""
    backend, count = load_mnist_flow(str(folder)), read_unet(folder).num_classes
    rows = {}
    for steps in FEW:
        sampler = Sampler(backend, (), None, steps)
        rows[f"{steps} step{'s' * (steps > 1)}"] = sampler.sample(range(count), range(count)).x
    return contact_sheet(rows, columns=",".join(map(str, range(count))))


def plan(backend: Backend, steps: int) -> tuple[Solver, int]:
    """The solver, and the number of steps, by which a model is sampled from noise.

    The backend's own solver and ``steps``, unless its path does not end in noise, such as the
    course's DDPM of T = 300, which keeps 22 % of the image. A sampler that starts from noise then
    starts beside the path. The course's ancestral steps, one per time, lead back to it; few or
    deterministic steps do not.
    """
    schedule = backend.schedule
    if isinstance(schedule, DiscreteSchedule) and schedule.at(len(schedule) - 1)[0] > KEPT:
        return DDPM(variance="fixed_large"), len(schedule)
    return backend.default_solver, steps


def draw_denoised(folder: Path, columns: int = 10) -> Image.Image:
    """Draw test digits, the denoiser's inputs, and its estimates."""
    denoiser = load_denoiser(folder)
    digits = sample_digits()[0][:columns]
    shown = denoiser.show(digits)
    return contact_sheet({"digit": digits, "shown": shown, "answer": denoiser(shown)})
