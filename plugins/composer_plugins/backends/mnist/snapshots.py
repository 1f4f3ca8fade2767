"""What a trained network makes, in one picture: beside every model that training writes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from composer import Sampler
from composer_plugins.backends.mnist.backend import load_mnist_flow, read_unet
from composer_plugins.backends.mnist.data import sample_digits
from composer_plugins.backends.mnist.denoiser import load_denoiser
from composer_plugins.cfg import CFG
from composer_plugins.sheet import contact_sheet

SCALE, STEPS = 2.0, 20


def draw_samples(folder: Path, columns: int = 6) -> Image.Image:
    """Samples of a folder that ``composer train mnist`` wrote: a row a class, or four rows of none.

    A column is a seed, the same for every class.
    """
    # Whatever its path and prediction type: the folder says them.
    backend = load_mnist_flow(str(folder))
    num_classes = read_unet(folder).num_classes
    if num_classes:
        guided = Sampler(backend, [CFG(SCALE)], num_inference_steps=STEPS)
        rows = {str(k): guided.sample(k, range(columns)).x for k in range(num_classes)}
        return contact_sheet(rows, columns=",".join(f"seed {seed}" for seed in range(columns)))
    plain = Sampler(backend, num_inference_steps=STEPS)
    seeds = [range(first, first + 10) for first in range(0, 40, 10)]
    return contact_sheet({f"seeds {s[0]} to {s[-1]}": plain.sample(seeds=s).x for s in seeds})


def draw_denoised(folder: Path, columns: int = 10) -> Image.Image:
    """Test digits, what the denoiser is shown of them, and its answer."""
    denoiser = load_denoiser(folder)
    digits = sample_digits()[0][:columns]
    shown = denoiser.show(digits)
    return contact_sheet({"digit": digits, "shown": shown, "answer": denoiser(shown)})
