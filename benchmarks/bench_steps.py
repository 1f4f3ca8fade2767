"""What the loop costs around the network: reads from the device, and time of a step.

Times are the processor's, of one thread: other programs slow them little. Those of two libraries
are measured in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

import composer
from composer import Sampler
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend, IdentityBackend
from composer.testing.reads import Reads
from composer_plugins import CFG, Anagram, Hybrid, Inpaint, Particles, SDEdit

TWO_VIEWS = {"identity": 0, "rotate_180": 1}
SOLVERS = {
    "Euler": Euler(),
    "DDIM": DDIM(),
    "DDPM": DDPM(),
    "DPM++": DPMSolverPP(),
    "Heun": Heun(),
    "diffusers": DiffusersSolver(DDIMScheduler(clip_sample=False)),
}
IMAGE, MASK = torch.zeros(1, 8, 8), torch.eye(8)
READING = {
    "CFG": [CFG(3.0)],
    "Anagram + CFG": [Anagram(TWO_VIEWS), CFG(3.0)],
    "Anagram, rectified": [Anagram(TWO_VIEWS, rectification=0.5)],
    "Hybrid + CFG": [Hybrid(0, 1), CFG(3.0)],
    "Inpaint + CFG": [Inpaint(IMAGE, MASK), CFG(3.0)],
    "SDEdit + CFG": [SDEdit(IMAGE, 0.9), CFG(3.0)],
    "Particles": [Particles(lambda x: x.flatten(1).sum(1), ((1, 4), (0.5, 2), (0, 1)))],
}


def steps(repeats: int) -> None:
    reads()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        around_nothing(repeats)
        beside_pipeline(repeats)
        rows_in_a_call(repeats)
    finally:
        torch.set_num_threads(threads)


def reads() -> None:
    print("(j) numbers read from the device: of a step, and of a run beside its steps")
    means = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    backend = GaussianMixtureBackend(means, [0.2] * 3, dtype=torch.float32)
    print(f"    {'':20}" + "".join(f"{name:>12}" for name in SOLVERS))
    for name, plugins in READING.items():
        counts = [
            [_reads(backend, plugins, solver, n) for n in (4, 8)] for solver in SOLVERS.values()
        ]
        cells = "".join(f"{f'{(b - a) / 4:g}, {2 * a - b}':>12}" for a, b in counts)
        bar = "" if name == "Particles" else "   (must be 0, 1)"
        print(f"    {name:20}{cells}{bar}")


def _reads(backend: Any, plugins: list[object], solver: Any, num_steps: int) -> int:
    sampler = Sampler(backend, plugins, solver, num_steps)
    with Reads() as seen:
        sampler.sample(seeds=[0, 1])
    return seen.total


def around_nothing(repeats: int) -> None:
    print("(k) a step around a network that costs nothing, 16 images of 28 x 28, ms")
    backend = IdentityBackend((1, 28, 28), dtype=torch.float32)
    rows = {
        "Euler": ([], Euler(), "at most .10"),
        "Euler + CFG": ([CFG(4.0)], Euler(), "at most .15"),
        "DDIM": ([], DDIM(), "no bar"),
        "DPM++": ([], DPMSolverPP(), "no bar"),
        "Heun, two evaluations": ([], Heun(), "no bar"),
        "Euler, anagram + CFG": ([Anagram(TWO_VIEWS), CFG(4.0)], Euler(), "no bar"),
    }
    for name, (plugins, solver, bar) in rows.items():
        sampler = Sampler(backend, plugins, solver, 100)
        condition = 3 if len(plugins) < 2 else None
        took = _processor_time({name: partial(sampler.sample, condition, range(16))}, repeats)
        print(f"    {name:24} {1e3 * took[name] / 100:.3f}   ({bar})")


def beside_pipeline(repeats: int) -> None:
    """UNet2DModel without its forward, which both sides share."""
    print("(l) outside of forwards, UNet2DModel of 64 pixels, ms a step")
    unet = UNet2DModel(sample_size=64, block_out_channels=(32, 64, 64, 64), norm_num_groups=8)
    pipeline = DDPMPipeline(unet, DDPMScheduler())
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        backend = composer.load_backend("diffusers", model=folder)
    pipeline.set_progress_bar_config(disable=True)
    for network in (pipeline.unet, backend.unet):
        network.forward = _Nothing()
    views = Anagram({"identity": None, "rotate_180": None})
    for images, num_steps in ((1, 20), (256, 4)):
        ours = {"ours": [], "ours, two-view anagram": [views]}
        jobs: dict[str, Callable[[], object]] = {
            "DDPMPipeline": partial(_run_pipeline, pipeline, images, num_steps),
            **{
                name: partial(
                    Sampler(backend, plugins, num_inference_steps=num_steps).sample,
                    seeds=range(images),
                )
                for name, plugins in ours.items()
            },
        }
        for name, seconds in _processor_time(jobs, repeats).items():
            bar = "at most the pipeline's" if (name, images) == ("ours", 1) else "no bar"
            print(f"    {images:3} images  {name:24} {1e3 * seconds / num_steps:7.3f}   ({bar})")


def rows_in_a_call(repeats: int) -> None:
    """``max_rows="auto"`` beside what it chooses from; two steps of a two-view anagram."""
    print("(m) rows in a call: over the better of all at once and image by image")
    unconditional: dict[str, Any] = {"identity": None, "rotate_180": None}
    networks = {
        "mnist, 28 pixels": (composer.load_backend("mnist"), {"identity": 6, "rotate_180": 9}),
        "UNet2DModel, 32 pixels": (_unet(32, (64, 64, 128)), unconditional),
        "UNet2DModel, 64 pixels": (_unet(64, (32, 64, 64)), unconditional),
        "UNet2DModel, 128 pixels": (_unet(128, (32, 32, 64)), unconditional),
    }
    bounds: dict[str, Any] = {"all at once": None, "image by image": 2, "auto": "auto"}
    for name, (backend, views) in networks.items():
        for images in (2, 8):
            jobs = {
                called: partial(
                    Sampler(
                        backend, [Anagram(views)], num_inference_steps=2, max_rows=bound
                    ).sample,
                    seeds=range(images),
                )
                for called, bound in bounds.items()
            }
            took = _processor_time(jobs, repeats)
            better = min(took["all at once"], took["image by image"])
            shares = ", ".join(f"{called} {took[called] / better:.3f}" for called in bounds)
            print(f"    {name:24} {images} images: {shares}   (auto at most 1.03)", flush=True)


def _unet(size: int, channels: tuple[int, ...]) -> Any:
    unet = UNet2DModel(
        sample_size=size,
        block_out_channels=channels,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    with tempfile.TemporaryDirectory() as folder:
        DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
        return composer.load_backend("diffusers", model=folder)


class _Nothing:
    """A forward that makes its output once a shape."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, sample: Tensor, *_: object, **__: object) -> UNet2DOutput:
        if sample.shape not in self._made:
            self._made[sample.shape] = torch.randn(sample.shape)
        return UNet2DOutput(sample=self._made[sample.shape])


def _run_pipeline(pipeline: DDPMPipeline, images: int, num_steps: int) -> None:
    made = [torch.Generator().manual_seed(seed) for seed in range(images)]
    pipeline(images, made if images > 1 else made[0], num_steps, output_type="np")


def _processor_time(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of the processor of each job, the jobs taking turns."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(repeats):
        for name, job in jobs.items():
            began = time.process_time()
            job()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in times.items()}
