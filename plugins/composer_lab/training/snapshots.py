"""What a trained network makes, in one picture: beside every model that training writes."""

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

if TYPE_CHECKING:  # not needed until there is something to draw
    from PIL import Image

SCALE, STEPS = 2.0, 20
KEPT = 0.1
"""Of the image at the end of a path; more is not noise."""


def draw_samples(folder: Path, columns: int = 6) -> Image.Image:
    """Samples of a folder that ``composer train mnist`` wrote: a row a class, or four rows of none.

    A column is a seed, the same for every class.
    """
    # Whatever its path and prediction type: the folder says them.
    backend = load_mnist_flow(str(folder))
    num_classes = read_unet(folder).num_classes
    solver, steps = plan(backend, STEPS)
    if num_classes:
        guided = Sampler(backend, [CFG(SCALE)], solver, steps)
        rows = {str(k): guided.sample(k, range(columns)).x for k in range(num_classes)}
        return contact_sheet(rows, columns=",".join(f"seed {seed}" for seed in range(columns)))
    plain = Sampler(backend, (), solver, steps)
    seeds = [range(first, first + 10) for first in range(0, 40, 10)]
    return contact_sheet({f"seeds {s[0]} to {s[-1]}": plain.sample(seeds=s).x for s in seeds})


def plan(backend: Backend, steps: int) -> tuple[Solver, int]:
    """The solver, and the number of steps, by which a model is sampled from noise.

    Its own and ``steps``, unless its path does not end in noise, as the course's DDPM of T = 300,
    which keeps 22 % of the image. Noise is then not quite where the path ends; the course's
    ancestral steps, one for each time, find the way back to it, and few or deterministic ones do
    not.
    """
    schedule = backend.schedule
    if isinstance(schedule, DiscreteSchedule) and schedule.at(len(schedule) - 1)[0] > KEPT:
        return DDPM(variance="fixed_large"), len(schedule)
    return backend.default_solver, steps


def draw_denoised(folder: Path, columns: int = 10) -> Image.Image:
    """Test digits, what the denoiser is shown of them, and its answer."""
    denoiser = load_denoiser(folder)
    digits = sample_digits()[0][:columns]
    shown = denoiser.show(digits)
    return contact_sheet({"digit": digits, "shown": shown, "answer": denoiser(shown)})
