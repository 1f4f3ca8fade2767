"""Reflow: a flow whose paths are straight enough for one to four steps.

A flow that is trained on data couples every noise with every image, so its paths bend, and one
step from noise ends at the mean of the images. Reflow couples each noise z with the image x_0 that
a teacher makes of it, and trains the same regression on the straight line between the two (Liu et
al. 2023, "Flow Straight and Fast", arXiv 2209.03003, section 2.2):

    x_t = (1 - t) z + t x_0,        v(x_t, t) ~ x_0 - z.

At t = 0 this is distillation into one step. The teacher's guidance is in its images, so the student
needs none.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from composer import UNCONDITIONAL, Backend, Sampler
from composer.authoring import generator_of
from composer.named import device_of
from composer.predictions import FLOW
from composer.solvers import DPMSolverPP
from composer.writing import make_folder, write_atomically
from composer_lab.training.config import TrainingConfig
from composer_lab.training.data import FixedImages, stratified
from composer_lab.training.mnist import PathSpec, unet_writer
from composer_lab.training.objective import Batch
from composer_lab.training.snapshots import draw_few_steps
from composer_lab.training.trainer import Trainer
from composer_plugins.backends.mnist.backend import load_mnist_flow, read_unet
from composer_plugins.backends.placement import computes_in_bf16
from composer_plugins.guidance.cfg import CFG

if TYPE_CHECKING:
    from composer_plugins.backends.mnist.unet import MnistUNet

PAIRS = "pairs.safetensors"
STEPS = 6
SCALE, INTERVAL = 5.0, (0.0, 0.45)
"""The teacher's guidance, late: it sharpens the strokes and keeps the variety."""
CHUNK = 500
PATH = PathSpec({"type": "flow"}, "flow", "flow")


class Pairs(NamedTuple):
    """Noises and the teacher's images of them, float16 (N, 2, 28, 28), and labels, int64 (N,).

    The label ``num_classes`` means unconditional.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Reflow:
    """Regression on the lines between paired noises and images; see the module.

    Half of each batch is at t = 0, where a step starts at every number of steps, and half is
    uniform in t.
    """

    def batch(
        self,
        x0: Tensor,
        labels: Tensor,
        num_classes: int,
        config: TrainingConfig,
        generator: torch.Generator,
    ) -> Batch:
        """As for a Task, but ``x0`` (B, 2C, H, W) holds the noises, then the images."""
        noise, image = x0.float().chunk(2, dim=1)
        times = (2 * stratified(len(x0), generator) - 1).clamp_min(0).float()
        alpha = times[:, None, None, None]
        x = alpha * image + (1 - alpha) * noise
        return Batch((x, times, labels), FLOW.target(image, noise, alpha, 1 - alpha))

    def identity(self) -> dict[str, object]:
        return {"schedule": "FlowSchedule", "prediction": FLOW.name, "coupling": "reflow"}


def train_few_step(
    config: TrainingConfig,
    out: Path,
    pairs: int = 8000,
    init: Path | None = None,
    progress: bool = True,
) -> MnistUNet:
    """Train, or resume the training in ``out``; write pairs, model, samples, log and loss there.

    Args:
        pairs: how many pairs the teacher makes.
        init: folder of a flow with classes, the teacher, whose weights training starts from; None
            for the shipped one.
    """
    if init is None:
        config = replace(config, started_from="the shipped flow")
    shipped = files("composer_plugins.backends.mnist") / "weights" / "flow"
    with nullcontext(init) if init is not None else as_file(shipped) as folder:
        model = read_unet(folder)
        bf16 = computes_in_bf16(device_of(config.device)) if config.bf16 is None else config.bf16
        dtype = "bfloat16" if bf16 else "float32"
        teacher = load_mnist_flow(str(folder), config.device, dtype)
    if not model.num_classes:
        raise ValueError(f"--init {init} was trained without classes. Name a flow with classes.")
    coupled = kept_pairs(teacher, model.num_classes, pairs, config, out, progress)
    data, about = FixedImages(*coupled), {"pairs": pairs}
    trainer = Trainer(model, Reflow(), data, model.num_classes, config, out, about)
    write = unet_writer(trainer, "path.json", PATH._asdict(), draw_few_steps, "MNIST, reflow")
    return cast("MnistUNet", trainer.run(progress, write))


def kept_pairs(
    teacher: Backend,
    num_classes: int,
    count: int,
    config: TrainingConfig,
    folder: Path,
    progress: bool,
) -> Pairs:
    """The pairs of a training: those in its folder, or new ones, which are written there.

    Raises:
        ValueError: the folder has pairs of other settings.
    """
    file = make_folder(folder) / PAIRS
    settings = {"pairs": count, "seed": config.seed, "started_from": config.started_from}
    about = {"settings": json.dumps(settings)}  # one entry, because safetensors orders at random
    if file.is_file():
        with safe_open(file, framework="pt") as content:
            if content.metadata() != about:
                raise ValueError(
                    f"{file} belongs to a training with other settings. Name another folder."
                )
            return Pairs(**{name: content.get_tensor(name) for name in Pairs._fields})
    drawn = draw_pairs(teacher, num_classes, count, config.seed, progress)
    write_atomically(file, lambda path: save_file(drawn._asdict(), path, about))
    return drawn


def draw_pairs(
    teacher: Backend, num_classes: int, count: int, seed: int, progress: bool = False
) -> Pairs:
    """Sample the teacher from ``count`` noises; each class, and no class, equally often."""
    sampler = Sampler(teacher, [CFG(SCALE, INTERVAL)], DPMSolverPP(), STEPS)
    parts = []
    with tqdm(total=count, disable=not progress, desc="pairs") as bar:
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            generator = generator_of(seed, first)
            noise = torch.randn(len(numbers), *teacher.shape, generator=generator)
            labels = [number % (num_classes + 1) for number in numbers]
            conditions = [UNCONDITIONAL if k == num_classes else k for k in labels]
            image = sampler.sample(conditions, numbers, x=noise).x.clamp(-1, 1)
            parts.append(Pairs(torch.cat([noise, image.cpu()], 1).half(), torch.tensor(labels)))
            bar.update(len(numbers))
    return Pairs(*map(torch.cat, zip(*parts, strict=True)))
